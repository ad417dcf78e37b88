# SPDX-License-Identifier: Apache-2.0
"""The rig: a whole federation on one machine, as it is deployed, to be broken on purpose.

toy          data, plan and policy so small that a federation is about its processes and lines, not about its learning
kill_sweep   every failpoint, many times, on the in-process engine; struck and evidence are its two halves
proxy        a TCP line that is slow, late, lossy, cut or partitioned, in user space

What runs here is the deployed code. The rig starts it, hurts it and looks at what is left; it holds no protocol of its own. Nothing here
is installed at a hospital or imported by `client` or `server`.
"""
