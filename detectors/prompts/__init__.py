"""Known prompts under another coat: near duplicates of texts in a library, however they are written or encoded."""
