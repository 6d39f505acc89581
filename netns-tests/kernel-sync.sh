#!/bin/bash
# What kernel-sync.test.ts runs in the virtual machine: the tree from one archive into memory (file by file from the host takes a minute), then the test itself.
set -eu
modprobe tun
mkdir -p /run/tapvs
tar -xf "$OUT/tree.tar" -C /run/tapvs
exec python3 "$(dirname "$0")/kernel-sync.py" /run/tapvs
