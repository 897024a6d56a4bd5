"""Conformance: what the OCI runtime-spec asks of a runtime, one pytest case for each sentence, over any runtime.

The cases are the test_*.py beside this file. `oci-harness conformance` runs them; so does pytest by itself, given the
path of this directory: `pytest harness/compat/conformance --runtime NAME[=PATH] --view VIEW`.
"""
