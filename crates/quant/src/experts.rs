//! The experts of one layer.

use burn::tensor::Tensor;

use burn_omni_ops::{self as ops, Routes};

/// Feed-forward experts, `down(silu(gate x) * up x)` each.
#[derive(Clone, Debug)]
pub struct Experts {
    stored: Stored,
}

/// How the matrices are stored.
#[derive(Clone, Debug)]
enum Stored {
    Dense { gate_up: Tensor<3>, down: Tensor<3> },
}

impl Experts {
    /// Experts in f32, bf16 or f16.
    ///
    /// # Shapes
    /// - gate_up: `[experts, 2 * intermediate, hidden]`, gate rows first
    /// - down: `[experts, hidden, intermediate]`
    #[must_use]
    pub fn dense(gate_up: Tensor<3>, down: Tensor<3>) -> Self {
        Self {
            stored: Stored::Dense { gate_up, down },
        }
    }

    /// The weighted sum of each row's experts.
    ///
    /// # Shapes
    /// - x, output: `[rows, hidden]`
    #[must_use]
    pub fn forward(&self, x: Tensor<2>, routes: Routes) -> Tensor<2> {
        match &self.stored {
            Stored::Dense { gate_up, down } => {
                ops::experts(x, routes, gate_up.clone(), down.clone())
            }
        }
    }
}
