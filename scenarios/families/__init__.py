"""Scenario families: each turns a record into inputs (plan) and answers into verdicts (judge)."""
