//! Rotary positions: the angles of each row, for one position axis or the three of M-RoPE.

use burn::tensor::{Device, Tensor, TensorData};

/// The frequencies of a rotary embedding, and the position axis that each of them turns with.
#[derive(Clone, Debug)]
pub struct Rope {
    inverse_frequency: Vec<f32>,
    axis: Vec<usize>,
}

/// Cosines and sines of some rows, `[rows, head_dim / 2]` each; every layer of a pass uses the same.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// Cosines.
    pub cos: Tensor<2>,
    /// Sines.
    pub sin: Tensor<2>,
}

impl Rope {
    /// Frequencies `theta^(-2i / head_dim)`. With a section `[t, h, w]` they are interleaved: frequency `i` turns with
    /// the height when `i % 3 == 1` and `i < 3 * h`, with the width when `i % 3 == 2` and `i < 3 * w`, else with time
    /// (docs/spec/thinker.md B.3); without one, all turn with time.
    #[must_use]
    pub fn new(head_dim: usize, theta: f64, section: Option<[usize; 3]>) -> Self {
        let half = head_dim / 2;
        let inverse_frequency = (0..half)
            .map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64) as f32)
            .collect();
        let axis = (0..half)
            .map(|i| match (section, i % 3) {
                (Some([_, height, _]), 1) if i < 3 * height => 1,
                (Some([_, _, width]), 2) if i < 3 * width => 2,
                _ => 0,
            })
            .collect();
        Self {
            inverse_frequency,
            axis,
        }
    }

    /// The frequencies, half as many as a head has numbers.
    #[must_use]
    pub fn inverse_frequency(&self) -> &[f32] {
        &self.inverse_frequency
    }

    /// The table of rows at these positions, one list an axis (time, height, width).
    ///
    /// # Panics
    /// When the lists differ in length.
    #[must_use]
    pub fn table(&self, positions: [&[f32]; 3], device: &Device) -> RopeTable {
        let rows = positions[0].len();
        assert!(
            positions.iter().all(|axis| axis.len() == rows),
            "every row has a position on every axis"
        );
        let half = self.axis.len();
        let (mut cos, mut sin) = (
            Vec::with_capacity(rows * half),
            Vec::with_capacity(rows * half),
        );
        let [time, height, width] = positions;
        for ((time, height), width) in time.iter().zip(height).zip(width) {
            let row = [time, height, width];
            for (axis, frequency) in self.axis.iter().zip(&self.inverse_frequency) {
                // The angle is formed in f32, as the reference does; its functions are then exact to f32.
                let angle = f64::from(row[*axis] * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        let tensor = |values| Tensor::from_data(TensorData::new(values, [rows, half]), device);
        RopeTable {
            cos: tensor(cos),
            sin: tensor(sin),
        }
    }

    /// The table of `rows` rows at the positions `first, first + 1, …` on all axes.
    #[must_use]
    pub fn sequence(&self, first: usize, rows: usize, device: &Device) -> RopeTable {
        let positions: Vec<f32> = (first..first + rows).map(|i| i as f32).collect();
        self.table([&positions; 3], device)
    }
}
