"""Strata: a trial is drawn for one, learned from and pruned within one, and counted; on both databases."""
