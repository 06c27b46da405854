//! GPU kernels, written once in CubeCL: launchers over plain buffers, without a tensor library.
