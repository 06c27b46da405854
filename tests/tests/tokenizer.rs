//! The release's vocabulary, which is too large to be committed: `tests/golden/tokenizer/make.py DIR` makes its folder,
//! and `BURN_OMNI_TOKENIZER_DIR=DIR` says where it is.

use std::path::PathBuf;

use burn_omni_model::processor::Tokenizer;
use burn_omni_tests::{read, repository};
use serde::Deserialize;

#[derive(Deserialize)]
struct Ids {
    vocabulary: usize,
    page: Vec<u32>,
    lines: Vec<Vec<u32>>,
}

#[test]
fn a_page_of_mixed_scripts_has_the_references_ids_by_both_ways_of_loading() {
    let Some(folder) = std::env::var_os("BURN_OMNI_TOKENIZER_DIR").map(PathBuf::from) else {
        println!("skipped: BURN_OMNI_TOKENIZER_DIR is not set");
        return;
    };
    let page = read(&repository("tests/golden/tokenizer/page.txt"));
    let golden: Ids = serde_json::from_str(&read(&repository("tests/golden/tokenizer/ids.json")))
        .expect("ids.json has this shape");
    for way in ["json", "vocab"] {
        let tokenizer = Tokenizer::load(&folder.join(way)).expect("the folder is a tokenizer");
        assert_eq!(tokenizer.vocab_size(), golden.vocabulary, "{way}");
        let ids = |text: &str| tokenizer.encode(text).expect("any text has ids");
        for (line, golden) in page.split('\n').zip(&golden.lines) {
            assert_eq!(&ids(line), golden, "{way}: {line}");
        }
        assert_eq!(ids(&page), golden.page, "{way}");

        let mut stream = tokenizer.stream(false);
        let pieces: Vec<String> = golden
            .page
            .iter()
            .filter_map(|id| stream.push(*id))
            .collect();
        let streamed = pieces.concat() + &stream.finish().unwrap_or_default();
        assert_eq!(streamed, tokenizer.decode(&golden.page, false), "{way}");
    }
    assert_eq!(page.split('\n').count(), golden.lines.len());
}
