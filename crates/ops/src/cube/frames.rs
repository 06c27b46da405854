//! Frames of codes captured on the device.
//!
//! A frame is two graphs. The first passes one row and chooses the frame's first code; the second passes the normed row,
//! the row of the first code and those of the codes as it chooses them, and sums the rows of all codes, of which the first
//! graph makes the next row. The host adds a row of its own to each frame and reads the codes.

use burn::tensor::{DType, Tensor};
use burn_omni_kernels::Buffer;
use burn_omni_kernels::choose::{Chooser, Chosen};
use burn_omni_kernels::control::{RING, STEP, TOKEN, TOKENS};
use burn_omni_kernels::decode::{Entry, Stack, leave};
use burn_omni_kernels::few::{self, Rows, Weights};
use burn_omni_kernels::{Heads, write_rows};
use cubecl::client::Graph;
use cubecl::prelude::*;

use super::buffers::{flat, primitive};
use super::decode::{Stacked, capture, failed, last_row, on_device, rows, rows_of, scored};
use crate::decode::{Choosing, DecodeError, FrameParts};

/// The passes of a frame.
#[derive(Clone)]
pub(crate) struct CapturedFrames {
    graphs: [Graph; 2],
    client: Client,
    first: First,
    others: Others,
    shared: Shared,
    capacity: usize,
}

/// What both graphs read and write, f32 `[hidden]` each.
#[derive(Clone)]
struct Shared {
    /// What the host adds.
    text: Buffer,
    /// The sum of the rows of a frame's codes.
    sum: Buffer,
    /// The normed row that chose the first code.
    hidden: Buffer,
}

/// What chooses the first code.
#[derive(Clone)]
struct First {
    stack: Stack,
    head: Weights,
    scores: Buffer,
    chooser: Chooser,
}

/// What chooses the others.
#[derive(Clone)]
struct Others {
    stack: Stack,
    /// Rows of the first code, and of each of the others.
    tables: Vec<Rows>,
    heads: Vec<Weights>,
    scores: Buffer,
    chooser: Chooser,
    codes: Buffer,
}

impl std::fmt::Debug for CapturedFrames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CapturedFrames").finish_non_exhaustive()
    }
}

impl First {
    fn launch(&self, client: &Client, shared: &Shared) {
        let Self {
            stack,
            head,
            scores,
            chooser,
        } = self;
        let row = (&stack.row, stack.first_norm());
        let entry = Entry::Sum([&shared.sum, &shared.text]);
        entry.launch(client, (&stack.control, &stack.attend), row, (0, 0.0));
        stack.launch(client);
        few::normed(client, head, &stack.row, scores);
        leave(client, &stack.row, &shared.hidden);
        chooser.launch(client, scores, Chosen::Token(&stack.control));
    }
}

impl Others {
    fn launch(&self, client: &Client, shared: &Shared, first: &Buffer) {
        self.enter(client, Entry::Row(&shared.hidden), 0);
        self.stack.launch(client);
        self.enter(client, self.code(0, (first, TOKEN), &shared.sum), 1);
        self.stack.launch(client);
        for (group, head) in self.heads.iter().enumerate() {
            few::normed(client, head, &self.stack.row, &self.scores);
            let chosen = Chosen::Code(&self.codes, group);
            self.chooser.launch(client, &self.scores, chosen);
            let code = self.code(group + 1, (&self.codes, group), &shared.sum);
            self.enter(client, code, group + 2);
            if group + 1 < self.heads.len() {
                self.stack.launch(client);
            }
        }
    }

    /// The row of a code, which the first one begins the sum with.
    fn code<'a>(&'a self, table: usize, id: (&'a Buffer, usize), sum: &'a Buffer) -> Entry<'a> {
        Entry::Token {
            table: &self.tables[table],
            id,
            sum,
            begins: table == 0,
        }
    }

    /// Makes it the row at this place of the frame.
    fn enter(&self, client: &Client, entry: Entry<'_>, place: usize) {
        let stack = &self.stack;
        let row = (&stack.row, stack.first_norm());
        let place = (rows_of(place), place as f32);
        entry.launch(client, (&stack.control, &stack.attend), row, place);
    }
}

impl CapturedFrames {
    pub(crate) fn new(parts: FrameParts) -> Option<Self> {
        let caches = [&parts.first.stack, &parts.others];
        let [capacity, places] = caches.map(|stack| {
            stack
                .layers
                .first()
                .map_or(0, |layer| layer.attention.cache[0].dims()[0])
        });
        let Stacked { client, stack } = Stacked::new(parts.first.stack)?;
        let Stacked { stack: others, .. } = Stacked::new(parts.others)?;
        let heads: Option<Vec<_>> = parts.heads.into_iter().map(scored).collect();
        let (head, heads) = (scored(parts.first.head)?, heads?);
        let tables = std::iter::once(parts.first_table).chain(parts.tables);
        let tables: Option<Vec<_>> = tables.map(|table| rows(table.unsqueeze())).collect();
        let (tables, width) = (tables?, stack.row.width);
        // One chooser serves all heads.
        let scores = heads.first()?.rows();
        let fits = heads.iter().all(|head| head.rows() == scores)
            && tables.len() == heads.len() + 1
            && tables.iter().all(|table| table.width == width)
            && others.row.width == width
            && capacity > 0
            && places > heads.len();
        fits.then_some(())?;
        let room = |count| Buffer::empty(&client, f32::elem_type_native(), count);
        let zeros = || Buffer::of(&client, &vec![0.0_f32; width]);
        let shared = Shared {
            text: zeros(),
            sum: zeros(),
            hidden: zeros(),
        };
        let first = First {
            scores: room(head.rows()),
            chooser: Chooser::new(&client, head.rows()),
            stack,
            head,
        };
        let others = Others {
            scores: room(scores),
            chooser: Chooser::new(&client, scores),
            codes: Buffer::numbers(&client, &vec![0; heads.len()]),
            stack: others,
            tables,
            heads,
        };
        let control = &first.stack.control;
        control.start(&client, 0, last_row(capacity), 0.0);
        let graphs = [
            capture(&client, &shared.hidden, || first.launch(&client, &shared))?,
            capture(&client, &others.codes, || {
                others.launch(&client, &shared, &control.0);
            })?,
        ];
        Some(Self {
            graphs,
            client,
            first,
            others,
            shared,
            capacity,
        })
    }

    pub(crate) fn start(
        &self,
        (first, hidden): (u32, Tensor<2>),
        (len, position): (usize, f32),
        choosing: [&Choosing; 2],
    ) {
        assert!(len <= self.capacity, "the caches hold what passed");
        self.write(hidden, &self.shared.hidden);
        let control = &self.first.stack.control;
        control.start(&self.client, first, rows_of(len), position);
        let choosers = [&self.first.chooser, &self.others.chooser];
        for (chooser, choosing) in choosers.into_iter().zip(choosing) {
            chooser.start(&self.client, &on_device(choosing));
        }
    }

    pub(crate) fn next(&self, row: Tensor<2>) -> Result<(), DecodeError> {
        self.write(row, &self.shared.text);
        self.replay(0)
    }

    pub(crate) fn codes(&self) -> Result<Vec<u32>, DecodeError> {
        self.replay(1)?;
        let buffers = [&self.first.stack.control.0, &self.others.codes];
        let handles = buffers.map(|buffer| buffer.handle.clone());
        let words = self.client.read_async(handles.into());
        let words = cubecl::future::block_on(words).map_err(failed)?;
        let [control, others] = [0, 1].map(|i| u32::from_bytes(&words[i]));
        // The host knows the first code of the first frame; those after it are in the ring.
        let first = match control[STEP] as usize {
            0 => control[TOKEN],
            steps => control[TOKENS + (steps - 1) % RING],
        };
        let mut codes = vec![first];
        codes.extend(&others[..self.others.heads.len()]);
        Ok(codes)
    }

    /// A row of the host's tensors into a buffer that stays where it is.
    fn write(&self, row: Tensor<2>, to: &Buffer) {
        let row = primitive(row.cast(DType::F32)).expect("rows are on the device of the weights");
        let width = self.first.stack.row.width;
        let row = Heads {
            buffer: flat(row),
            rows: 1,
            heads: 1,
            width,
            strides: [width, width],
        };
        write_rows(&self.client, &row, to, 0);
    }

    fn replay(&self, graph: usize) -> Result<(), DecodeError> {
        #[expect(unsafe_code, reason = "the graphs work on the buffers of this")]
        // SAFETY: it holds them as long as the graphs.
        unsafe { self.graphs[graph].replay() }.map_err(failed)
    }
}
