use super::*;

fn plan() -> MemoryPlan {
    let plan = MemoryPlan {
        components: Vec::new(),
        weights_bytes: 20_000_000_000,
        context: 0,
        kv_bytes_per_token: 100_000,
        kv_bytes: 0,
        talker_kv_bytes: 150_000_000,
        workspace_bytes: 0,
        total_bytes: 0,
        workspace: Workspace {
            prompt: 600_000_000,
            decoded_per_token: 0,
            packet: 500_000_000,
            overhead: 250_000_000,
        },
    };
    plan.holding(32_768)
}

#[test]
fn the_longest_context_counts_what_a_prompt_decodes_of_it() {
    let plan = plan();
    let workspace = Workspace {
        decoded_per_token: 4000,
        packet: 640_000_000,
        ..plan.workspace
    };
    let plan = MemoryPlan {
        kv_bytes_per_token: 50_000,
        workspace,
        ..plan
    };
    // With few tokens a packet takes more than a chunk of a prompt, with many less.
    for limit in [21_200_000_000, 21_600_000_000, 23_000_000_000] {
        let longest = plan.longest_within(limit);
        assert!(plan.clone().holding(longest).total_bytes <= limit);
        assert!(plan.clone().holding(longest + STEP).total_bytes > limit);
        let same = plan.clone().holding(longest);
        assert_eq!(same.longest_within(limit), longest);
    }
}

#[test]
fn a_plan_is_the_sum_of_its_parts() {
    assert_eq!(plan().total_bytes, 21_000_000_000 + 3_276_800_000);
}

#[test]
fn what_fits_stays_as_it_is() {
    let plan = plan().within(24_276_800_000, false).unwrap();
    assert_eq!(plan.context, 32_768);
}

#[test]
fn a_context_nobody_asked_for_becomes_what_fits() {
    let plan = plan().within(23_000_000_000, true).unwrap();
    // 2 GB hold 20,000 tokens, in steps of 256.
    assert_eq!(plan.context, 19_968);
    assert!(plan.total_bytes <= 23_000_000_000);
    let longer = plan.clone().holding(plan.context + STEP);
    assert!(longer.total_bytes > 23_000_000_000);
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let error = plan().within(23_000_000_000, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the model takes 22.61 GiB with a context of 32768 tokens, and may take 21.42 GiB"
    );
    assert_eq!(error.hint().unwrap(), "--max-context 19968 would fit");
}

#[test]
fn weights_alone_can_be_too_many() {
    for limit in [19_000_000_000, 21_050_000_000, 0] {
        // 500 tokens are no context to shorten to.
        let error = plan().within(limit, true).unwrap_err();
        assert!(matches!(error, Error::DoesNotFit { limit: of, .. } if of == limit));
    }
    let error = plan().within(19_000_000_000, true).unwrap_err();
    assert!(error.hint().unwrap().contains("--quantize nvfp4"));
}
