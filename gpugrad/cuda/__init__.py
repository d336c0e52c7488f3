"""What runs on CUDA arrays: functions and kernels, given CuPy as `cp` by its backend."""
