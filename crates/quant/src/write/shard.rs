//! Writing one file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::quantize::Encoded;

use super::file::PartFile;
use super::layout::{Content, Shard, Unit};
use super::part::{Read, Values};
use super::run::Meter;
use super::{Plan, WriteError};

impl Shard<'_> {
    /// Whether the file is there as it would be written, as far as can be seen without reading its tensors.
    pub(super) fn is_whole(&self, path: &Path) -> bool {
        let Ok(mut file) = File::open(path) else {
            return false;
        };
        let mut head = vec![0; self.head.len()];
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.len() == self.bytes)
            && file.read_exact(&mut head).is_ok()
            && head == self.head
    }

    /// Writes the file, one tensor at a time.
    pub(super) fn write(
        &self,
        path: &Path,
        plan: &Plan<'_>,
        meter: &mut Meter<'_>,
    ) -> Result<(), WriteError> {
        let mut file = PartFile::create(path)?;
        file.write(&self.head)?;
        // The scales of the matrix whose codes were written last.
        let mut scales = Vec::new();
        for stored in &self.stored {
            let unit = &self.units[stored.unit];
            match (stored.content, unit.part.values) {
                (Content::TensorScale, _) => {
                    let scale = unit.tensor_scale(plan)?;
                    file.write(&scale.to_le_bytes())?;
                }
                (content, Values::Drawn(noise)) => {
                    let content = (content, unit.part.shape.len() < 2);
                    noise.write(&mut file, &stored.name, content, stored.bytes())?;
                }
                (Content::Same, Values::Read(read)) => {
                    file.write(read.bytes)?;
                    meter.read(read.bytes.len())?;
                }
                (Content::Codes, Values::Read(read)) => {
                    let encoded = unit.encode(plan, read)?;
                    file.write(&encoded.codes)?;
                    scales = encoded.scales;
                    meter.read(read.bytes.len())?;
                }
                (Content::Scales, Values::Read(_)) => file.write(&scales)?,
            }
            if matches!(unit.part.values, Values::Drawn(_)) {
                meter.pass(stored.bytes() as u64)?;
            }
        }
        file.finish()
    }
}

impl Unit<'_> {
    /// The largest magnitude of all that share the tensor scale.
    fn amax(&self, plan: &Plan<'_>) -> Result<f32, WriteError> {
        let group = self.group.map(|number| &plan.groups[number]);
        group.map_or(Ok(0.0), super::plan::Group::amax)
    }

    fn tensor_scale(&self, plan: &Plan<'_>) -> Result<f32, WriteError> {
        let amax = self.amax(plan)?;
        let convention = plan.options.form.convention();
        Ok(convention.map_or(1.0, |convention| convention.tensor_scale(amax)))
    }

    fn encode(&self, plan: &Plan<'_>, read: Read<'_>) -> Result<Encoded, WriteError> {
        let amax = self.amax(plan)?;
        Ok(plan.options.form.encode(self.part.matrix(read)?, amax))
    }
}
