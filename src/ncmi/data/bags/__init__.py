"""Bags of features: files, cohorts, splits by patient, reading ahead."""
