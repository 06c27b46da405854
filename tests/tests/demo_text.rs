//! What the trained demo model answers, against the reference: all cases, and the prompts and answers of the goldens.

use std::collections::BTreeMap;

use burn_omni::FinishReason;
use burn_omni_tests::demo::{answers, cases, engine, goldens, request};
use burn_omni_tests::reply::run;

#[test]
fn every_case_is_answered_as_by_the_reference() {
    let (cases, golden) = (cases(), answers());
    assert_eq!((cases.len(), golden.len()), (308, 308));
    let (mut failures, mut right) = (Vec::new(), BTreeMap::<_, [usize; 2]>::new());
    for case in &cases {
        let reply = run(engine(), request(&case.messages, None));
        let answer = match reply {
            Ok(reply) => reply.answer,
            Err(error) => {
                failures.push(format!("{}: {error}", case.id));
                continue;
            }
        };
        let counts = right.entry(case.group.as_str()).or_default();
        counts[0] += usize::from(answer.text == case.expect);
        counts[1] += 1;
        if answer.text != golden[&case.id] || answer.finish_reason != FinishReason::Stop {
            failures.push(format!(
                "{}: ours `{}` ({}), the reference's `{}`",
                case.id,
                answer.text,
                answer.finish_reason.name(),
                golden[&case.id],
            ));
        }
    }
    for (group, [right, all]) in &right {
        println!("{group}: {right} of {all} right");
    }
    let count = failures.len();
    assert!(
        failures.is_empty(),
        "{count} differ:\n{}",
        failures.join("\n")
    );
    let right: usize = right.values().map(|counts| counts[0]).sum();
    assert_eq!(right, 307, "the reference misses one, and so do we");
}

#[test]
fn the_tokens_of_the_goldens_are_the_references() {
    for golden in goldens() {
        let reply = run(engine(), request(&golden.messages, None)).expect("the case is sound");
        let answer = reply.answer;
        assert_eq!(answer.text, golden.text, "{}", golden.id);
        assert_eq!(answer.token_ids, golden.output_ids, "{}", golden.id);
        assert_eq!(
            answer.usage.prompt_tokens,
            golden.prompt_ids.len(),
            "{}",
            golden.id
        );
    }
}
