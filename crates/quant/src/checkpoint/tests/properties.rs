//! No input makes `open` panic, and what is written is what is read.

use std::collections::BTreeMap;

use proptest::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};

use super::super::{Component, TensorSet};
use super::*;

/// Opens a file and touches every value, so that a wrong range would show.
fn touch(content: &[u8]) -> Result<usize, CheckpointError> {
    let checkpoint = open(&folder(&[("model.safetensors", content)]))?;
    let tensors = checkpoint.components().flat_map(TensorSet::iter);
    Ok(tensors.map(|(_, tensor)| tensor.bytes.len()).sum())
}

/// JSON that resembles a header: the right keys with right and wrong values.
fn header_like() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        (0_u64..40).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|x| json!(x)),
        Just(Value::Null),
    ];
    let list = prop::collection::vec(number.clone(), 0..4).prop_map(Value::Array);
    let dtype = prop_oneof![Just("F32"), Just("U8"), Just("F4"), Just("BF16"), Just("X")];
    let value = prop_oneof![4 => list, 1 => number];
    let entry = (dtype, value.clone(), value).prop_map(
        |(dtype, shape, offsets)| json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}),
    );
    let name = prop_oneof![
        "(thinker|talker|code2wav)\\.[a-c]",
        Just("__metadata__".to_string()),
        any::<String>(),
    ];
    prop::collection::btree_map(name, entry, 0..4)
        .prop_map(|entries| Value::Object(entries.into_iter().collect()))
}

fn tensors() -> impl Strategy<Value = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>> {
    let dtype = prop_oneof![Just(Dtype::U8), Just(Dtype::BF16), Just(Dtype::F8_E4M3)];
    let tensor =
        (dtype, prop::collection::vec(0_usize..4, 0..3)).prop_flat_map(|(dtype, shape)| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            prop::collection::vec(any::<u8>(), bytes)
                .prop_map(move |bytes| (dtype, shape.clone(), bytes))
        });
    prop::collection::btree_map("[a-d]{1,3}(\\.[a-d]){0,2}", tensor, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn arbitrary_bytes_never_panic(content in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = touch(&content);
    }

    #[test]
    fn arbitrary_headers_never_panic(header in header_like(), data in 0_usize..64) {
        let _ = touch(&raw_file(&header.to_string(), &vec![0; data]));
    }

    #[test]
    fn a_changed_byte_never_panics(
        place in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(),
    ) {
        let mut file = file_of(&["thinker.a", "talker.model.b", "code2wav.c"]);
        let place = place.index(file.len());
        file[place] = byte;
        let _ = touch(&file);
        file.truncate(cut.index(file.len()));
        let _ = touch(&file);
    }

    #[test]
    fn arbitrary_json_files_never_panic(
        index in header_like(), config in header_like(), text in any::<Vec<u8>>(),
    ) {
        let weights = file_of(&["thinker.a"]);
        let (config, index) = (config.to_string(), json!({"weight_map": index}).to_string());
        let _ = open(&folder(&[
            ("config.json", config.as_bytes()),
            ("model.safetensors.index.json", index.as_bytes()),
            ("a.safetensors", &weights),
        ]));
        let _ = open(&folder(&[("config.json", &text), ("thinker/model.safetensors", &weights)]));
    }

    #[test]
    fn what_is_written_is_read(tensors in tensors()) {
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).expect("a valid tensor");
            (format!("thinker.{name}"), view)
        });
        let file = serialize(views, None).expect("a valid file");
        let dir = folder(&[("model.safetensors", &file)]);
        let checkpoint = open(&dir).expect("a good checkpoint");
        let thinker = checkpoint.component(Component::Thinker).expect("the thinker");
        prop_assert_eq!(thinker.len(), tensors.len());
        for (name, (dtype, shape, bytes)) in &tensors {
            let read = thinker.get(name).expect("a tensor");
            prop_assert_eq!((read.dtype, read.shape, read.bytes), (*dtype, &shape[..], &bytes[..]));
            prop_assert_eq!(read.name, format!("thinker.{name}"));
        }
    }
}
