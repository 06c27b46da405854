//! What a component would be loaded from, where there is no checkpoint.

use crate::checkpoint::Component;
use crate::load::{Context, Pass};
use crate::{LoadOptions, Weights};

/// A tensor that a component asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name in the component, as a release has it: experts are stored one by one.
    pub name: String,
    /// Its shape when it is not quantized.
    pub shape: Vec<usize>,
}

/// The tensors that `build` asks for, by name. What it builds has tensors without content, on the device of the options.
pub fn asked<T>(
    component: Component,
    options: LoadOptions<'_>,
    build: impl FnOnce(&Weights<'_>) -> T,
) -> Vec<Asked> {
    let context = Context::new((component, None), options, Pass::Check);
    build(&Weights::root(&context));
    let asked = context.asked.into_inner().into_iter();
    asked.map(|(name, shape)| Asked { name, shape }).collect()
}
