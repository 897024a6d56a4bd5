"""From an error text or a cluster's evidence to the cause, and to the smallest bundle that fails the same way."""

from harness.diagnosis.diagnosis import Diagnosis, Report, diagnose, diagnose_lines

__all__ = ["Diagnosis", "Report", "diagnose", "diagnose_lines"]
