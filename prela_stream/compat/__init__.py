"""The APIs of other SDKs, for code that migrates to this one."""
