"""What pyproject.toml cannot say: the native core, built where there is a C compiler and left out elsewhere."""

import os
import sys
import sysconfig

from setuptools import Extension, setup

# One build serves all later versions of Python: from 3.11 on the stable interface has buffers.
STABLE = sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED")
# The same bits from every compiler: nothing is contracted, and no root looks at errno, so that loops vectorise.
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-pthread"] if os.name == "posix" else ["/std:c11"]

setup(
    ext_modules=[
        Extension(
            "rwtool.maps._native",
            ["rwtool/maps/_native.c"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE else [],
            extra_compile_args=FLAGS,
            extra_link_args=["-pthread"] if os.name == "posix" else [],
            py_limited_api=STABLE,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
