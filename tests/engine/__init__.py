"""Tests of floor 3: queue, packing, loop, wire, supervised process."""
