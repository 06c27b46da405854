//! Writing one file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::quantize::Encoded;

use super::file::PartFile;
use super::layout::{Content, Shard, Stored, Unit};
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
        for Stored { content, unit, .. } in &self.stored {
            let unit = &self.units[*unit];
            match content {
                Content::Same => {
                    file.write(unit.part.bytes)?;
                    meter.read(unit.part.bytes.len())?;
                }
                Content::TensorScale => {
                    let scale = unit.tensor_scale(plan)?;
                    file.write(&scale.to_le_bytes())?;
                }
                Content::Codes => {
                    let encoded = unit.encode(plan)?;
                    file.write(&encoded.codes)?;
                    scales = encoded.scales;
                    meter.read(unit.part.bytes.len())?;
                }
                Content::Scales => file.write(&scales)?,
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

    fn encode(&self, plan: &Plan<'_>) -> Result<Encoded, WriteError> {
        let amax = self.amax(plan)?;
        Ok(plan.options.form.encode(self.part.matrix()?, amax))
    }
}
