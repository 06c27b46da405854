//! The experts of one layer.

use burn::tensor::{DType, Tensor, TensorData};
use burn_omni_ops::decode::Matrices;
use burn_omni_ops::{self as ops, Packed, Routes};

use crate::checkpoint::CheckpointError;
use crate::formats::{self, JoinedWeight, Layout};
use crate::linear::{bytes, times};
use crate::load::Pass;
use crate::raw::Dense;
use crate::warnings::Kind;
use crate::{Warnings, Weights};

/// Feed-forward experts, `down(silu(gate x) * up x)` each.
#[derive(Clone, Debug)]
pub struct Experts {
    stored: Stored,
    factor: Option<Tensor<1>>,
}

/// How the matrices are stored.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "both are handles, and a layer has one of them"
)]
enum Stored {
    Dense { gate_up: Tensor<3>, down: Tensor<3> },
    Packed { gate_up: Packed, down: Packed },
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
            factor: None,
        }
    }

    /// Experts of 4- or 8-bit codes; the matrices of `gate_up` are gated.
    #[must_use]
    pub fn packed(gate_up: Packed, down: Packed) -> Self {
        Self {
            stored: Stored::Packed { gate_up, down },
            factor: None,
        }
    }

    /// The same for an input that is first multiplied with `factor`, `[hidden]`.
    #[must_use]
    pub fn with_factor(self, factor: Option<Tensor<1>>) -> Self {
        Self { factor, ..self }
    }

    /// Whether the matrices are kept in 4- or 8-bit codes.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        matches!(self.stored, Stored::Packed { .. })
    }

    /// Bytes of all matrices.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.stored {
            Stored::Dense { gate_up, down } => [gate_up, down].map(bytes).iter().sum(),
            Stored::Packed { gate_up, down } => gate_up.bytes() + down.bytes(),
        }
    }

    /// Gate and up, and down, of all experts, where there is nothing else.
    #[must_use]
    pub fn matrices(&self) -> Option<[Matrices; 2]> {
        self.factor.is_none().then(|| match &self.stored {
            Stored::Dense { gate_up, down } => [gate_up, down].map(|x| Matrices::Dense(x.clone())),
            Stored::Packed { gate_up, down } => {
                [gate_up, down].map(|x| Matrices::Packed(x.clone()))
            }
        })
    }

    /// The weighted sum of each row's experts.
    ///
    /// # Shapes
    /// - x, output: `[rows, hidden]`
    #[must_use]
    pub fn forward(&self, x: Tensor<2>, routes: Routes) -> Tensor<2> {
        let x = times(x, self.factor.as_ref());
        match &self.stored {
            Stored::Dense { gate_up, down } => {
                ops::experts(x, routes, gate_up.clone(), down.clone())
            }
            Stored::Packed { gate_up, down } => ops::packed_experts(x, routes, gate_up, down),
        }
    }
}

/// The sizes of the experts of a layer.
#[derive(Clone, Copy)]
struct Size {
    experts: usize,
    hidden: usize,
    intermediate: usize,
}

impl Size {
    fn gate_up(self) -> Layout {
        Layout {
            matrices: self.experts,
            rows: 2 * self.intermediate,
            width: self.hidden,
            gated: true,
        }
    }

    fn down(self) -> Layout {
        Layout {
            matrices: self.experts,
            rows: self.hidden,
            width: self.intermediate,
            gated: false,
        }
    }
}

/// The stored matrices of all experts.
struct Found<'a> {
    gate_up: Vec<formats::Stored<'a>>,
    down: Vec<formats::Stored<'a>>,
}

impl<'a> Weights<'a> {
    /// The experts below this place, stored one by one or as `gate_up_proj` and `down_proj` of all.
    ///
    /// # Shapes
    /// - one by one: `{e}.gate_proj`, `{e}.up_proj` `[intermediate, hidden]`, `{e}.down_proj` `[hidden, intermediate]`
    /// - of all: `[experts, 2 * intermediate, hidden]`, gate rows first, and `[experts, hidden, intermediate]`
    #[must_use]
    pub fn experts(&self, experts: usize, hidden: usize, intermediate: usize) -> Experts {
        let size = Size {
            experts,
            hidden,
            intermediate,
        };
        if self.draws() {
            return self.drawn_experts(size.gate_up(), size.down());
        }
        let found = if self.has_fused_experts() {
            self.fused(size)
        } else {
            self.listed(size)
        };
        let read = found.filter(|_| self.context.pass == Pass::Read);
        read.and_then(|found| self.read_experts(found, size))
            .unwrap_or_else(|| {
                let empty =
                    |layout: Layout| self.empty([layout.matrices, layout.rows, layout.width]);
                Experts::dense(empty(size.gate_up()), empty(size.down()))
            })
    }

    fn has_fused_experts(&self) -> bool {
        let ends = ["", ".weight", "_blocks", ".weight_packed", "_packed"];
        ends.iter().any(|end| {
            self.context
                .contains(&self.name(format!("gate_up_proj{end}")))
        })
    }

    fn fused(&self, size: Size) -> Option<Found<'a>> {
        let all = |name: &str, layout: Layout| {
            let lead = vec![layout.matrices, layout.rows];
            self.find_all([(name, lead)].into_iter(), layout.width)
        };
        let gate_up = all("gate_up_proj", size.gate_up());
        let down = all("down_proj", size.down());
        Some(Found {
            gate_up: gate_up?,
            down: down?,
        })
    }

    fn listed(&self, size: Size) -> Option<Found<'a>> {
        let Size {
            experts,
            hidden,
            intermediate,
        } = size;
        let listed = 0..self.context.end(experts);
        let gate_ups = listed.clone().flat_map(|e| {
            ["gate", "up"].map(|name| (format!("{e}.{name}_proj"), vec![intermediate]))
        });
        let downs = listed.map(|e| (format!("{e}.down_proj"), vec![hidden]));
        let gate_up = self.find_all(gate_ups, hidden);
        let down = self.find_all(downs, intermediate);
        Some(Found {
            gate_up: gate_up?,
            down: down?,
        })
    }

    fn read_experts(&self, mut found: Found<'a>, size: Size) -> Option<Experts> {
        let warnings = self.context.options.warnings;
        let factors = match take_factors(&mut found.down) {
            Ok(factors) => factors,
            Err(error) => {
                self.context.fail(error);
                return None;
            }
        };
        let mut gate_up = self.join(&found.gate_up, size.gate_up())?;
        if factors.iter().any(Option::is_some) {
            gate_up = gate_up.scale_rows(|row| size.factor(&factors, row));
        }
        let down = self.join(&found.down, size.down())?;
        let factor = self.factor(gate_up.factor.take());
        let experts = match (gate_up.weight, down.weight) {
            (JoinedWeight::Packed(gate_up), JoinedWeight::Packed(down)) => {
                Experts::packed(self.packed(gate_up), self.packed(down))
            }
            (gate_up, down) => {
                let kinds = [&gate_up, &down].map(JoinedWeight::is_packed);
                if kinds[0] != kinds[1] {
                    let first = found.gate_up.first().map_or("", |part| part.module.name());
                    warnings.note(Kind::MixedForms, first, 1);
                }
                let upload = |weight: JoinedWeight<'_>, layout: Layout| {
                    let shape = [layout.matrices, layout.rows, layout.width];
                    self.upload::<2>(dense(weight, warnings)).reshape(shape)
                };
                Experts::dense(upload(gate_up, size.gate_up()), upload(down, size.down()))
            }
        };
        Some(experts.with_factor(factor))
    }
}

impl Size {
    /// What row `row` of the gate and up rows is multiplied with, so that the input of `down` has its factors.
    fn factor(self, factors: &[Option<Vec<f32>>], row: usize) -> f32 {
        let (expert, row) = (row / (2 * self.intermediate), row % (2 * self.intermediate));
        let Some(column) = row.checked_sub(self.intermediate) else {
            return 1.0; // gates pass through a function that is not linear
        };
        // Fused experts share one.
        let factor = factors.get(expert).or(factors.first());
        factor
            .and_then(Option::as_ref)
            .map_or(1.0, |factor| factor[column])
    }
}

/// The factors on the inputs of these matrices, which have none then.
fn take_factors(
    parts: &mut [formats::Stored<'_>],
) -> Result<Vec<Option<Vec<f32>>>, CheckpointError> {
    let each = parts.iter_mut().map(|part| part.factor.take());
    each.map(|factor| factor.map(|factor| factor.to_f32()).transpose())
        .collect()
}

fn dense<'a>(weight: JoinedWeight<'a>, warnings: &Warnings) -> Dense<'a> {
    match weight {
        JoinedWeight::Dense(dense) => dense,
        JoinedWeight::Packed(packed) => {
            let bytes = packed.read(warnings);
            let shape = [bytes.spec.matrices * bytes.spec.rows, bytes.spec.width];
            let data = TensorData::new(bytes.values(), shape);
            data.convert_dtype(DType::BF16).into()
        }
    }
}
