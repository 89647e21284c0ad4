#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What memory costs when it is touched for the first time, which loading and the first step pay: a virtual machine may
have to get it from its host. One core; prints GB/s."""
import argparse
import ctypes
import mmap
import time


def rate(address, size):
    begin = time.perf_counter()
    ctypes.memset(address, 1, size)
    return size / (time.perf_counter() - begin) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--gib", type=int, default=8, help="GiB to touch; the machine must have them free")
    size = parser.parse_args().gib << 30
    for name, advice, pause_s in (("small pages", mmap.MADV_NOHUGEPAGE, 0), ("huge pages", mmap.MADV_HUGEPAGE, 30)):
        time.sleep(pause_s)  # a host that takes free memory back has time to
        memory = mmap.mmap(-1, size)
        memory.madvise(advice)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        print(f"{name}: first {rate(address, size):.2f} GB/s, again {rate(address, size):.2f} GB/s", flush=True)
        del memory


main()
