"""Evidence → diagnosis → cure. Rules are pure functions of evidence; only `cure` acts.

Nothing is imported here: `sexton.doctor.evidence.collect` looks, `sexton.doctor.diagnosis.diagnose` thinks.
"""
