"""How a CPython was built, because that alone can change a figure by a third."""

import json
import subprocess
from typing import Any

_CODE = """
import json, sysconfig, time
steps, found = 1_000_000, []
for _ in range(5):
    began = time.process_time()
    for _ in range(steps):
        pass
    found.append((time.process_time() - began) / steps * 1e9)
arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
print(json.dumps({"optimised_cpython": "--enable-optimizations" in arguments, "loop_step_ns": round(min(found), 1)}))
"""


def build_of(python: str) -> dict[str, Any]:
    """Two figures of this CPython.

    `optimised_cpython`: whether its build records profile-guided optimisation. Some distributors optimise and do not record it.
    `loop_step_ns`: CPU time of one step of an empty loop, for a comparison.
    """
    found: dict[str, Any] = json.loads(subprocess.run([python, "-c", _CODE], capture_output=True, check=True).stdout)
    return found
