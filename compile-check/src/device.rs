//! What CubeCL's CUDA runtime would say about a device: `cubecl-cuda` 0.11.3, `runtime.rs`, without the driver.

use cubecl_core::cmma::MatrixLayout;
use cubecl_core::ir::features::{AtomicUsage, Plane, Tma, TypeUsage};
use cubecl_core::ir::{
    ContiguousElements, DeviceIdentity, DeviceProperties, ElemType, FloatKind, HardwareProperties,
    MemoryDeviceProperties, MmaProperties, OpaqueType, TargetProperties, Type, VectorSize,
};
use cubecl_core::profile::TimingMethod;
use cubecl_cpp::cuda::arch::CudaArchitecture;
use cubecl_cpp::cuda::mma::{CudaCmmaCompiler, manual::contiguous_elements_cuda};
use cubecl_cpp::cuda::{supported_mma_combinations, supported_scaled_mma_combinations};
use cubecl_cpp::register_supported_types;
use cubecl_cpp::shared::{
    CompilationOptions, CppSupportedFeatures, register_mma_features, register_scaled_mma_features,
    register_wmma_features,
};

use crate::architecture::{Architecture, THREADS};

/// How the C++ is written.
pub(crate) fn options(architecture: Architecture) -> CompilationOptions {
    let hopper = architecture.version >= 90;
    CompilationOptions {
        supports_features: CppSupportedFeatures {
            grid_constants: true,
            clusters: hopper,
            fast_math: true,
            fast_tanh: true,
            elect_sync: hopper,
            dp4a: true,
        },
        ..Default::default()
    }
}

/// What the launchers and the kernels ask about.
pub(crate) fn properties(architecture: Architecture) -> DeviceProperties {
    let arch = CudaArchitecture {
        version: architecture.version,
        tensor_cores: true,
    };
    let mut properties = DeviceProperties::new(
        Default::default(),
        MemoryDeviceProperties::new(1 << 36, 512),
        hardware(architecture),
        TimingMethod::Device,
        DeviceIdentity {
            name: architecture.name(),
            fingerprint: format!("ptx_sm{}", architecture.version),
            physical: None,
        },
    );
    register_supported_types(&mut properties);
    register_atomics(&mut properties, architecture.version);
    register_features(&mut properties, architecture.version);
    let wmma = CudaCmmaCompiler::Cpp.supported_cmma_combinations(&arch);
    register_wmma_features(wmma, &mut properties);
    register_mma_features(supported_mma_combinations(&arch), &mut properties);
    register_scaled_mma_features(supported_scaled_mma_combinations(&arch), &mut properties);
    properties
}

fn hardware(architecture: Architecture) -> HardwareProperties {
    HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: architecture.shared,
        max_cube_count: (i32::MAX as u32, 65_535, 65_535),
        max_units_per_cube: THREADS as u32,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(132),
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    }
}

fn register_atomics(properties: &mut DeviceProperties, version: u32) {
    let stored = AtomicUsage::Add | AtomicUsage::LoadStore | AtomicUsage::Exchange;
    let mut register = |kind: FloatKind, size: usize, usage| {
        let atomic = Type::atomic(Type::new(ElemType::Float(kind)).with_vector_size(size));
        properties.register_atomic_type_usage(atomic, usage);
    };
    register(FloatKind::F64, 1, stored);
    register(FloatKind::F16, 1, AtomicUsage::Add.into());
    register(FloatKind::F16, 2, stored);
    if version >= 90 {
        for kind in [FloatKind::BF16, FloatKind::F16] {
            for size in [2, 4, 8] {
                register(kind, size, stored);
            }
            for size in [4, 8] {
                register(kind, size, stored | AtomicUsage::MinMax);
            }
        }
        register(FloatKind::F32, 2, stored);
        register(FloatKind::F32, 4, stored);
    }
}

fn register_features(properties: &mut DeviceProperties, version: u32) {
    let halves = [FloatKind::F16, FloatKind::BF16].map(ElemType::Float);
    properties.register_opaque_type(OpaqueType::Barrier);
    properties.register_type_usage(ElemType::Float(FloatKind::TF32), TypeUsage::Conversion);
    if version >= 90 {
        properties.register_opaque_type(OpaqueType::TensorMap);
    }
    if version >= 100 {
        let both = TypeUsage::Conversion | TypeUsage::Buffer;
        properties.register_type_usage(ElemType::Float(FloatKind::E2M1), TypeUsage::Conversion);
        for kind in [
            FloatKind::E2M1x2,
            FloatKind::E2M3,
            FloatKind::E3M2,
            FloatKind::UE8M0,
        ] {
            properties.register_type_usage(ElemType::Float(kind), both);
        }
    }
    let features = &mut properties.features;
    features.memory_reinterpret = true;
    features.alignment = true;
    features.device_memory_scope = true;
    features.copy_async = true;
    features.plane.insert(Plane::Sync);
    features.plane.insert(Plane::Ops);
    features.plane.insert(Plane::NonUniformControlFlow);
    features.matmul.ldmatrix.extend(halves);
    if version >= 90 {
        features.cube_cluster = true;
        features.tma.insert(Tma::Base);
        features.matmul.stmatrix.extend(halves);
    }
    if version >= 100 {
        features.tma.insert(Tma::Im2colWide);
        features.tma.insert(Tma::SwizzleAtomicity);
    }
}

/// How the matrix units hold their operands.
pub(crate) fn target() -> TargetProperties {
    TargetProperties {
        mma: MmaProperties {
            register_size_bits: 32,
            const_plane_size: 32,
            register_layout_a: MatrixLayout::RowMajor,
            register_layout_b: MatrixLayout::ColMajor,
            register_layout_acc: MatrixLayout::RowMajor,
            register_duplication_a: 1,
            register_duplication_b: 1,
            register_duplication_acc: 1,
            contiguous_elements: ContiguousElements::new(contiguous_elements_cuda),
        },
    }
}
