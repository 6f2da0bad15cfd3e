//! When to try again: waiting times after failures, and budgets.
