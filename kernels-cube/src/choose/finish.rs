//! One cube chooses.

use cubecl::prelude::*;

use super::compare::{FEW, candidates, compare};
use super::digits::{Weighed, digits, limit, place, weight};
use super::random::uniform;
use super::score::{NOT_FINITE, key_of};
use super::units::{PEAKS, Shares, largest, shares, span};
use super::{CHOSEN, Chooser, Chosen, DRAWS, Form, SEEN, TEMPERATURE, TOP_K, TOP_P, marks};
use crate::Buffer;
use crate::control::{LEN, POSITION, RING, STEP, TOKEN, TOKENS};

#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub(super) fn launch(client: &Client, chooser: &Chooser, scores: &Buffer, chosen: Chosen<'_>) {
    let (output, slot, moves) = match chosen {
        Chosen::Token(control) => (&control.0, 0, true),
        Chosen::Code(codes, slot) => (codes, slot, false),
    };
    let form = Form {
        moves,
        ..chooser.form
    };
    // SAFETY: units stop at the last score, and the state has a bit of every token.
    unsafe {
        finish_kernel::launch_unchecked(
            client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(form.units as u32),
            scores.arg(),
            chooser.keys.arg(),
            chooser.peaks.arg(),
            chooser.state.arg(),
            output.arg(),
            slot as u32,
            chooser.vocabulary as u32,
            chooser.groups() as u32,
            marks(chooser.vocabulary) as u32,
            form,
        );
    }
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel takes its buffers one by one"
)]
fn finish_kernel(
    scores: &[f32],
    keys: &[u32],
    peaks: &[u32],
    state: &mut [u32],
    output: &mut [u32],
    slot: u32,
    vocabulary: u32,
    groups: u32,
    marks: u32,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    let mut shares = shares(form);
    // All keys, or the numbers of the groups to look into.
    let mut room = Shared::<[u32]>::new_slice(form.room);
    let temperature = f32::from_bits(state[TEMPERATURE]);
    let choice = if comptime!(form.group == 0) {
        let mut most = 0u32;
        let mut id = unit;
        while id < vocabulary as usize {
            let key = key_of(scores[id], id, &*state, marks);
            room[id] = key;
            most = select(key > most, key, most);
            id += form.units;
        }
        let (most, floor) = floor(most, &*state, &mut shares, form);
        let weighed = Weighed {
            count: vocabulary as usize,
            largest: most,
            temperature,
        };
        choose(&room, &room, weighed, floor, &*state, &mut shares, form)
    } else {
        let (weighed, floor) = likely(
            peaks,
            groups as usize,
            &mut room,
            &*state,
            &mut shares,
            form,
        );
        choose(keys, &room, weighed, floor, &*state, &mut shares, form)
    };
    if unit == 0usize {
        let found = choice != NOT_FINITE;
        let id = select(found, choice, 0u32);
        state[SEEN + id as usize / 32usize] |= select(found, 1u32 << (id % 32u32), 0u32);
        state[CHOSEN] += 1u32;
        if temperature != 0.0f32 {
            let draws = state[DRAWS] + 1u32;
            state[DRAWS] = draws;
            state[DRAWS + 1] += select(draws == 0u32, 1u32, 0u32);
        }
        if comptime!(form.moves) {
            let step = output[STEP];
            output[TOKENS + step as usize % RING] = choice;
            output[TOKEN] = id;
            output[LEN] += 1u32;
            output[POSITION] = u32::reinterpret(f32::from_bits(output[POSITION]) + 1.0f32);
            output[STEP] = step + 1u32;
        } else {
            output[slot as usize] = choice;
        }
    }
}

/// Of how many of the largest one is chosen, all where there are none so few.
#[cube]
fn top(state: &[u32]) -> u32 {
    let top_k = state[TOP_K];
    let top = select(top_k == 0u32, u32::new(u32::MAX as i64), top_k);
    select(f32::from_bits(state[TEMPERATURE]) == 0.0f32, 1u32, top)
}

/// The largest key of the units', and a key that the `top_k` largest are not below.
#[cube]
fn floor(own: u32, state: &[u32], shares: &mut Shares, #[comptime] form: Form) -> (u32, u32) {
    let top = top(state);
    let (most, floor) = largest(own, top, shares, form);
    (
        most,
        select(top <= PEAKS as u32 && floor > 0u32, floor, 1u32),
    )
}

/// Lists the groups that have candidates.
#[cube]
fn likely(
    peaks: &[u32],
    groups: usize,
    list: &mut Shared<[u32]>,
    state: &[u32],
    shares: &mut Shares,
    #[comptime] form: Form,
) -> (Weighed, u32) {
    let unit = UNIT_POS as usize;
    let mut own = 0u32;
    let mut at = unit;
    while at < groups {
        let key = peaks[at];
        own = select(key > own, key, own);
        at += form.units;
    }
    let (most, floor) = floor(own, state, shares, form);
    let each = groups.div_ceil(form.units);
    let first = unit * each;
    let end = select(first + each < groups, first + each, groups);
    let mut own = 0.0f32;
    let mut at = first;
    while at < end {
        own += select(peaks[at] >= floor, 1.0f32, 0.0f32);
        at += 1usize;
    }
    let span = span(own, shares, form);
    let mut next = u32::cast_from(span.begin) as usize;
    let mut at = first;
    while at < end {
        if peaks[at] >= floor {
            list[next] = at as u32;
            next += 1usize;
        }
        at += 1usize;
    }
    sync_cube();
    let weighed = Weighed {
        count: u32::cast_from(span.total) as usize * form.group,
        largest: most,
        temperature: f32::from_bits(state[TEMPERATURE]),
    };
    (weighed, floor)
}

/// What stays of the keys.
#[derive(CubeType)]
struct Kept {
    /// The smallest.
    floor: u32,
    /// How many of the first that equal it are dropped.
    dropped: f32,
}

/// What temperature, top-k and top-p leave of the keys that are not below `floor`.
#[cube]
fn keep(
    keys: &[u32],
    list: &[u32],
    weighed: &Weighed,
    floor: u32,
    state: &[u32],
    #[comptime] form: Form,
) -> Kept {
    let group = comptime!(form.group);
    let mut digits = digits();
    let top = top(state);
    let top_p = f32::from_bits(state[TOP_P]);
    let drawn = weighed.temperature != 0.0f32;
    let mut floor = floor;
    let mut dropped = 0.0f32;
    if top == 1u32 {
        floor = weighed.largest;
    } else if top != u32::new(u32::MAX as i64) {
        let top = f32::cast_from(top);
        floor = limit(
            keys,
            list,
            weighed,
            floor,
            top,
            &mut digits,
            group,
            false,
            form,
        )
        .key;
    }
    if drawn && top_p < 1.0f32 {
        let limit = limit(
            keys,
            list,
            weighed,
            floor,
            top_p,
            &mut digits,
            group,
            true,
            form,
        );
        floor = limit.key;
        dropped = limit.spared;
    }
    Kept { floor, dropped }
}

/// The number of the token that is drawn from the keys that are not below `floor`: few are compared with one another.
#[cube]
fn choose(
    keys: &[u32],
    list: &[u32],
    weighed: Weighed,
    floor: u32,
    state: &[u32],
    shares: &mut Shares,
    #[comptime] form: Form,
) -> u32 {
    let group = comptime!(form.group);
    let top = top(state);
    let top_p = f32::from_bits(state[TOP_P]);
    let number = select(weighed.temperature != 0.0f32, uniform(state), 0.0f32);
    // Each unit has keys that follow one another, so that units are in the order of the tokens.
    let each = weighed.count.div_ceil(form.units);
    let first = UNIT_POS as usize * each;
    let end = select(first + each < weighed.count, first + each, weighed.count);
    let mut own = 0.0f32;
    if top == u32::new(u32::MAX as i64) && weighed.count > FEW {
        // They are many without being counted.
        own = FEW as f32;
    } else {
        for at in first..end {
            own += select(keys[place(list, at, group)] >= floor, 1.0f32, 0.0f32);
        }
    }
    let span = span(own, shares, form);
    let mut candidates = candidates();
    let mut choice = Shared::<[u32]>::new_slice(1usize);
    if UNIT_POS == 0u32 {
        choice[0] = NOT_FINITE;
    }
    if weighed.largest != NOT_FINITE && span.total <= FEW as f32 {
        let mut next = u32::cast_from(span.begin) as usize;
        for at in first..end {
            let id = place(list, at, group);
            if keys[id] >= floor {
                candidates.keys[next] = keys[id];
                candidates.ids[next] = id as u32;
                next += 1usize;
            }
        }
        let count = u32::cast_from(span.total) as usize;
        compare(
            &mut candidates,
            count,
            &weighed,
            top,
            top_p,
            number,
            &mut choice,
        );
    } else if weighed.largest != NOT_FINITE {
        search(
            keys,
            list,
            &weighed,
            floor,
            state,
            number,
            &mut choice,
            shares,
            form,
        );
    }
    sync_cube();
    choice[0]
}

/// Draws from any number of keys.
#[cube]
fn search(
    keys: &[u32],
    list: &[u32],
    weighed: &Weighed,
    floor: u32,
    state: &[u32],
    number: f32,
    choice: &mut Shared<[u32]>,
    shares: &mut Shares,
    #[comptime] form: Form,
) {
    let group = comptime!(form.group);
    let kept = keep(keys, list, weighed, floor, state, form);
    let floor = kept.floor;
    let each = weighed.count.div_ceil(form.units);
    let first = UNIT_POS as usize * each;
    let end = select(first + each < weighed.count, first + each, weighed.count);
    let mut equal = 0.0f32;
    if kept.dropped > 0.0f32 {
        for at in first..end {
            equal += select(keys[place(list, at, group)] == floor, 1.0f32, 0.0f32);
        }
        equal = kept.dropped - span(equal, shares, form).begin;
    }
    let mut own = 0.0f32;
    let mut left = equal;
    for at in first..end {
        let key = keys[place(list, at, group)];
        if key == floor && left > 0.0f32 {
            left -= 1.0f32;
        } else if key >= floor {
            own += weight(key, weighed.largest, weighed.temperature);
        }
    }
    let span = span(own, shares, form);
    let target = number * span.total;
    if span.begin <= target && target < span.end {
        let rest = target - span.begin;
        let mut sum = 0.0f32;
        let mut left = equal;
        let mut found = u32::new(NOT_FINITE as i64);
        for at in first..end {
            let id = place(list, at, group);
            let key = keys[id];
            if key == floor && left > 0.0f32 {
                left -= 1.0f32;
            } else if key >= floor && (sum <= rest || found == u32::new(NOT_FINITE as i64)) {
                sum += weight(key, weighed.largest, weighed.temperature);
                found = id as u32;
            }
        }
        choice[0] = found;
    }
}
