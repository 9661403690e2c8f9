//! The native core of prela_stream's worker: the work per span of one partition.
//!
//! `Partition` decodes the items of a record, groups them by trace, keeps their bytes, counts them, and holds deadlines on stream
//! time. For each trace that is due it returns `Facts`. Policies, decisions and outputs are in Python, once per trace. The Python core
//! (`prela_stream.assembly`) is the specification; tests compare the two.

mod bodies;
mod brief;
mod deadlines;
mod decided;
mod decision;
mod facts;
mod ids;
mod item;
mod loaded;
mod msgpack;
mod names;
mod partition;
mod processes;
mod shards;
mod slots;
mod small;
mod trace;

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple, PyType};

use crate::brief::Brief;
use crate::decided::Decided;
use crate::decision::{dropped, hex, Frame, Known};
use crate::facts::{Amount, Facts, Items, Memo, Reading, Spellings, Tools, STAGES};
use crate::item::{Head, TraceId};
use crate::partition::{Added, Applied, Closed, Options, Partition};
use crate::trace::{Trace, Wait};

/// The version of the interface between this module and `prela_stream`; another one is not used.
const INTERFACE: u32 = 11;
/// An item counts once more as work for each so many bytes.
const PIECE_BYTES: usize = 1024;

/// A trace that is to be decided now.
#[pyclass(frozen, name = "ReadyTrace")]
struct ReadyTrace {
    id: TraceId,
    /// Index into the triggers of `assembly.completeness`, then MAX_SPANS and MAX_BYTES.
    #[pyo3(get)]
    trigger: u8,
    /// Index into `model.decision.Basis`.
    #[pyo3(get)]
    basis: u8,
    #[pyo3(get)]
    complete: bool,
    #[pyo3(get)]
    lost: bool,
    #[pyo3(get)]
    due_ms: i64,
    #[pyo3(get)]
    first_offset: i64,
    /// Items of `won` that are STARTs; the others are SPANs.
    starts: usize,
    #[pyo3(get)]
    open_spans: u32,
    bytes: Vec<u8>,
    /// The item that won each span.
    won: Vec<Brief>,
    /// The resource of the process of its first item; then the other processes with theirs.
    resource: Py<PyBytes>,
    resources: Vec<(u32, Py<PyBytes>)>,
    /// The service of the root, or of the first span if there is no root.
    service: Arc<str>,
    /// None: Python has to read the items, because one of them is unusual.
    facts: Option<Facts>,
}

#[pymethods]
impl ReadyTrace {
    #[getter]
    fn trace_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.id)
    }

    /// SPAN items; the other items of `raws` are STARTs.
    #[getter]
    fn spans(&self) -> usize {
        self.won.len() - self.starts
    }

    /// All items of `raws`.
    #[getter]
    fn items(&self) -> usize {
        self.won.len()
    }

    /// One item per span, in order of arrival.
    fn raws<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.won.iter().map(|one| PyBytes::new(py, one.item(&self.bytes))))
    }

    /// The resource of each item; those of one process are one object.
    fn resources<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.won.iter().map(|one| self.resource_of(py, one.process)))
    }

    /// `raws` and `resources` of the next items from this one on: as much as takes about as long as `step` small ones.
    fn piece<'py>(&self, py: Python<'py>, first: usize, step: usize) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
        let piece = &self.won[first.min(self.won.len())..self.end_of(first, step)];
        let raws = PyList::new(py, piece.iter().map(|one| PyBytes::new(py, one.item(&self.bytes))))?;
        Ok((raws, PyList::new(py, piece.iter().map(|one| self.resource_of(py, one.process)))?))
    }

    /// Whether every reader can read the attributes, events and links of the next items from this one on; see `piece`. Returns the
    /// first item that is not checked. None: not every reader can, and Python decides which ones.
    fn check_bodies(&self, first: usize, step: usize) -> Option<usize> {
        let is_plain = |item| Head::whole(item).is_ok_and(|head| bodies::are_plain(&head));
        let end = self.end_of(first, step);
        self.won[first.min(end)..end].iter().all(|one| is_plain(one.item(&self.bytes))).then_some(end)
    }

    /// Whether the facts of this trace are known. If not, Python reads the items.
    #[getter]
    fn plain(&self) -> bool {
        self.facts.is_some()
    }

    /// What policies and every decision read, in one call: `(trace id, trigger, complete, basis, first offset, due, spans, statuses,
    /// start, duration, randomness, thresholds, errors)`. `thresholds` is None if no span was head-sampled.
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let facts = self.known()?;
        let statuses = PyBytes::new_with(py, self.won.len(), |statuses| {
            statuses.iter_mut().zip(&self.won).for_each(|(status, one)| *status = one.status());
            Ok(())
        })?;
        let values = [
            PyBytes::new(py, &self.id).into_any(),
            self.trigger.into_pyobject(py)?.into_any(),
            self.complete.into_pyobject(py)?.to_owned().into_any(),
            self.basis.into_pyobject(py)?.into_any(),
            self.first_offset.into_pyobject(py)?.into_any(),
            self.due_ms.into_pyobject(py)?.into_any(),
            self.spans().into_pyobject(py)?.into_any(),
            statuses.into_any(),
            facts.start_ns.into_pyobject(py)?.into_any(),
            facts.duration_ns.into_pyobject(py)?.into_any(),
            facts.randomness.unwrap_or_else(|| randomness_of(&self.id)).into_pyobject(py)?.into_any(),
            match facts.thresholds[..] {
                [] | [0] => py.None().into_bound(py),
                _ => PyTuple::new(py, &facts.thresholds)?.into_any(),
            },
            facts.errors.into_pyobject(py)?.into_any(),
        ];
        PyTuple::new(py, values)
    }

    /// What the summary reads besides: `(name of the root, its service, items, input tokens, output tokens, shape hash, spans outside
    /// of their parent)`.
    fn summary<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let facts = self.known()?;
        let values = [
            PyString::new(py, self.root_name(facts)?).into_any(),
            PyString::new(py, &self.service).into_any(),
            self.items().into_pyobject(py)?.into_any(),
            facts.input_tokens.into_pyobject(py)?.into_any(),
            facts.output_tokens.into_pyobject(py)?.into_any(),
            PyString::new(py, &hex(&facts.shape)).into_any(),
            facts.outside_parent.into_pyobject(py)?.into_any(),
        ];
        PyTuple::new(py, values)
    }

    /// The cost of each leaf model call that has one, in no particular order; None if none has. Python adds them up.
    #[getter]
    fn costs<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let facts = self.known()?;
        if facts.costs.is_empty() {
            return Ok(None);
        }
        let costs = PyList::empty(py);
        for cost in &facts.costs {
            match cost {
                Amount::Int(cost) => costs.append(*cost)?,
                Amount::Float(cost) => costs.append(*cost)?,
            }
        }
        Ok(Some(costs))
    }

    /// The encoded decision on this trace, for one that is dropped; see `decision.rs`.
    #[allow(clippy::too_many_arguments)]
    fn dropped<'py>(
        &self,
        py: Python<'py>,
        source: &[u8],
        verdict: &[u8],
        version: &[u8],
        cut_offset: i64,
        cost: Option<f64>,
        weight_biased: bool,
        repeated: bool,
        trigger: &str,
        basis: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let facts = self.known()?;
        let frame = Frame { source, verdict, version, cut_offset, cost, weight_biased, repeated, trigger, basis };
        let known = Known {
            id: &self.id,
            complete: self.complete,
            first_offset: self.first_offset,
            due_ms: self.due_ms,
            root_name: self.root_name(facts)?,
            service: &self.service,
            items: self.items(),
        };
        Ok(PyBytes::new(py, &dropped(&frame, &known, facts)))
    }

    /// The declared attributes of each span, in pieces: MessagePack arrays of maps; empty if none are declared.
    #[getter]
    fn selected<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.known()?.selected.iter().map(|piece| PyBytes::new(py, piece)))
    }
}

impl ReadyTrace {
    fn known(&self) -> PyResult<&Facts> {
        self.facts.as_ref().ok_or_else(|| PyValueError::new_err("the facts of this trace are not known: read its items"))
    }

    /// Where a piece ends. It has at least one item.
    fn end_of(&self, first: usize, step: usize) -> usize {
        let mut left = step.max(1);
        let mut end = first;
        while left > 0 && end < self.won.len() {
            left = left.saturating_sub(1 + self.won[end].len() / PIECE_BYTES);
            end += 1;
        }
        end
    }

    fn resource_of(&self, py: Python<'_>, process: u32) -> Py<PyBytes> {
        let other = self.resources.binary_search_by_key(&process, |(one, _)| *one);
        other.map_or(&self.resource, |place| &self.resources[place].1).clone_ref(py)
    }

    fn root_name(&self, facts: &Facts) -> PyResult<&str> {
        let name = self.won.get(facts.foremost).map_or(&[][..], |root| root.name(&self.bytes));
        Ok(std::str::from_utf8(name)?)
    }
}

/// One partition of `spans`: undecided traces, deadlines, and decisions in their late window.
///
/// A panic becomes a Python exception. After that the state is unknown, so every further call raises it too.
#[pyclass(name = "Partition")]
struct PyPartition {
    inner: Partition,
    /// The exception for a panic.
    failure: Py<PyType>,
    failed: Option<String>,
    spellings: Spellings,
    wanted: Vec<Vec<u8>>,
    memo: Memo,
    /// Spans that one step reads, folds, or returns the facts of: about a millisecond.
    step: usize,
    /// Traces that left the partition, and are not returned yet.
    leaving: VecDeque<Closed>,
    reading: Option<Leaving>,
    /// The value of the record that is taken in in part.
    value: Option<Py<PyBytes>>,
}

#[pymethods]
impl PyPartition {
    /// `options`: the fields of `AssemblyOptions` as a dict; `describe`: whether a resource belongs to a process with
    /// heartbeats, and its service;
    /// `failure`: the exception that a panic becomes; `step`: the spans of one step.
    #[new]
    #[pyo3(signature = (options, describe, failure, *, input_tokens, output_tokens, cost, reads, max_item_bytes, step))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        options: &Bound<'_, PyDict>,
        describe: Py<PyAny>,
        failure: Py<PyType>,
        input_tokens: Vec<String>,
        output_tokens: Vec<String>,
        cost: Vec<String>,
        reads: Vec<String>,
        max_item_bytes: usize,
        step: usize,
    ) -> PyResult<Self> {
        let get = |name: &str| -> PyResult<i64> {
            let value = options.get_item(name)?;
            value.ok_or_else(|| PyValueError::new_err(format!("the option {name} is missing")))?.extract()
        };
        let (settle, remote) = (get("settle_ms")?, get("remote_wait_ms")?);
        // a trace may turn out to be lost without an item of its own; that must never make its deadline earlier
        let root = get("root_wait_ms")?.max(remote).max(settle);
        let otlp_root = get("otlp_root_wait_ms")?.max(remote).max(settle);
        let chosen = Options {
            waits: [settle, remote, root, get("idle_ms")?, 0, 0, get("idle_without_heartbeats_ms")?, otlp_root],
            lost_ms: get("lost_ms")?,
            silence_ms: get("silence_ms")?,
            max_age_ms: get("max_age_ms")?,
            max_spans: usize::try_from(get("max_spans")?).unwrap_or(usize::MAX),
            max_bytes: usize::try_from(get("max_bytes")?).unwrap_or(usize::MAX),
            max_item_bytes,
            most_pending: step,
        };
        let mut wanted: Vec<Vec<u8>> = reads.into_iter().map(String::into_bytes).collect();
        wanted.sort();
        wanted.dedup();
        let most_bytes = usize::try_from(get("max_decided_bytes")?).unwrap_or(usize::MAX);
        let decided = Decided::new(get("late_window_ms")?, most_bytes);
        Ok(PyPartition {
            inner: Partition::new(chosen, decided, describe),
            failure,
            failed: None,
            spellings: Spellings::new(&input_tokens, &output_tokens, &cost),
            wanted,
            memo: Memo::default(),
            step: step.max(1),
            value: None,
            leaving: VecDeque::new(),
            reading: None,
        })
    }

    #[getter]
    fn clock_ms(&self) -> i64 {
        self.inner.clock_ms
    }

    #[getter]
    fn open_traces(&self) -> usize {
        self.inner.open_traces()
    }

    #[getter]
    fn open_spans(&self) -> i64 {
        self.inner.open_spans
    }

    #[getter]
    fn open_bytes(&self) -> usize {
        self.inner.open_bytes
    }

    /// Decisions in their late window.
    #[getter]
    fn decided(&self) -> usize {
        self.inner.decided.len()
    }

    fn restore_clock(&mut self, clock_ms: i64) {
        self.inner.restore_clock(clock_ms);
    }

    /// Duplicates found so far.
    #[getter]
    fn duplicates(&self) -> u64 {
        self.inner.duplicates
    }

    /// What was done so far, in items and spans.
    #[getter]
    fn work(&self) -> u64 {
        self.inner.work + self.memo.visited / STAGES as u64
    }

    /// Moves the clock. Returns whether any trace may be due: then call `next_due` until it returns None.
    fn advance(&mut self, py: Python<'_>, now_ms: i64) -> PyResult<bool> {
        self.guarded(py, |this| Ok(this.inner.advance(now_ms)))
    }

    /// The next traces that are due, in the order of decisions, after about a millisecond of work. The list is empty if the work
    /// is not done yet, and None is returned if it is.
    fn next_due(&mut self, py: Python<'_>) -> PyResult<Option<Vec<Py<ReadyTrace>>>> {
        self.guarded(py, |this| {
            if !this.has_leaving() {
                if !this.inner.collect(this.step) {
                    return Ok(Some(Vec::new()));
                }
                this.leaving.extend(this.inner.take_due(this.step));
                if this.leaving.is_empty() {
                    return Ok(None);
                }
            }
            this.ready(py).map(Some)
        })
    }

    /// Begins to take out the traces with the most bytes times age, so that at most `most` bytes are held: then call `next_heaviest`
    /// until it returns None, before the next record.
    fn begin_heaviest(&mut self, py: Python<'_>, most: usize, trace_bytes: usize) -> PyResult<()> {
        self.guarded(py, |this| {
            this.inner.begin_heaviest(most, trace_bytes);
            Ok(())
        })
    }

    /// As `next_due`, in the order in which the traces began.
    fn next_heaviest(&mut self, py: Python<'_>) -> PyResult<Option<Vec<Py<ReadyTrace>>>> {
        self.guarded(py, |this| {
            if !this.has_leaving() {
                if !this.inner.find_heaviest(this.step) {
                    return Ok(Some(Vec::new()));
                }
                this.leaving.extend(this.inner.take_heaviest(this.step));
                if this.leaving.is_empty() {
                    return Ok(None);
                }
            }
            this.ready(py).map(Some) // it may be empty: traces without a span
        })
    }

    /// Begins to take out the traces that the last record made too large. Returns whether any may be: then call `next_over_limits`
    /// until it returns None.
    fn begin_over_limits(&mut self, py: Python<'_>) -> PyResult<bool> {
        self.guarded(py, |this| Ok(this.inner.begin_over()))
    }

    /// As `next_due`, in the order in which the traces began.
    fn next_over_limits(&mut self, py: Python<'_>) -> PyResult<Option<Vec<Py<ReadyTrace>>>> {
        self.guarded(py, |this| {
            if !this.has_leaving() {
                match this.inner.take_over(this.step) {
                    Some(closed) => this.leaving.extend(closed),
                    None => return Ok(None),
                }
            }
            this.ready(py).map(Some)
        })
    }

    /// Takes in the value of a record: `(items, control, spans, covered, late, resource)`. `late` has the trace id, the index and
    /// the bytes of each late span, and `resource` their process. An empty tuple: that is done in part, so call `add_more`. None, with
    /// nothing changed: an item is unusual, so Python decodes the record, and calls `begin_items`.
    #[pyo3(signature = (value, offset, *, replay = false))]
    fn add<'py>(
        &mut self,
        py: Python<'py>,
        value: &Bound<'py, PyBytes>,
        offset: i64,
        replay: bool,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.guarded(py, |this| {
            let names = (&this.spellings, &mut this.memo.names);
            let added = this.inner.add(py, value.as_bytes(), offset, replay, this.step, names)?;
            if matches!(added, Added::Part) {
                this.value = Some(value.clone().unbind());
            }
            added_tuple(py, added)
        })
    }

    /// Takes in more of a record; see `add`.
    fn add_more<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.guarded(py, |this| {
            let Some(value) = this.value.take() else {
                return Err(PyValueError::new_err("no record is taken in"));
            };
            let names = (&this.spellings, &mut this.memo.names);
            let added = this.inner.add_more(py, value.as_bytes(py), this.step, names)?;
            if matches!(added, Added::Part) {
                this.value = Some(value);
            }
            added_tuple(py, added)
        })
    }

    /// Begins to take in a record that Python decodes: then call `add_items` for all of its readable items, and `end_items`.
    #[pyo3(signature = (resource, offset, *, replay = false))]
    fn begin_items(&mut self, py: Python<'_>, resource: &[u8], offset: i64, replay: bool) -> PyResult<()> {
        self.guarded(py, |this| this.inner.begin_items(py, resource, offset, replay))
    }

    /// The next items: pairs of the index in the record and the bytes.
    fn add_items(&mut self, py: Python<'_>, items: Vec<(u32, Vec<u8>)>) -> PyResult<()> {
        self.guarded(py, |this| {
            let names = (&this.spellings, &mut this.memo.names);
            this.inner
                .add_items(&items, names)
                .map_err(|_| PyValueError::new_err("an item was accepted by Python's decoder and cannot be read here"))
        })
    }

    /// As `add`, after all items.
    fn end_items<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.guarded(py, |this| match this.inner.end_items(py) {
            Ok(applied) => applied_tuple(py, applied),
            Err(_) => Err(PyValueError::new_err("begin_items was not called")),
        })
    }

    /// Offset of the record with the first item of the oldest open trace, and stream time just before that record.
    fn low_watermark(&mut self, py: Python<'_>) -> PyResult<Option<(i64, i64)>> {
        self.guarded(py, |this| Ok(this.inner.oldest().map(|trace| (trace.first_offset, trace.clock_before))))
    }

    /// Stream time at the first item of the oldest open trace.
    fn oldest_ms(&mut self, py: Python<'_>) -> PyResult<Option<i64>> {
        self.guarded(py, |this| Ok(this.inner.oldest().map(|trace| trace.first_ms)))
    }

    fn next_deadline_ms(&mut self, py: Python<'_>) -> PyResult<Option<i64>> {
        self.guarded(py, |this| Ok(this.inner.next_deadline_ms()))
    }

    /// Panics, so that a test can see that a panic is an exception in Python.
    fn panic(&mut self, py: Python<'_>) -> PyResult<()> {
        self.guarded(py, |_| -> PyResult<()> { panic!("requested") })
    }

    /// A trace was decided; `entry` is None for a dropped one.
    fn remember(&mut self, trace_id: &[u8], entry: Option<&[u8]>, decided_at_ms: i64) -> PyResult<()> {
        self.inner.decided.remember(id_of(trace_id)?, entry, decided_at_ms);
        Ok(())
    }

    /// The entry of a live decision; None for a dropped trace.
    fn entry<'py>(&self, py: Python<'py>, trace_id: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.inner.decided.entry(&id_of(trace_id)?).map(|entry| PyBytes::new(py, entry)))
    }

    fn was_forgotten(&self, trace_id: &[u8], now_ms: i64) -> PyResult<bool> {
        Ok(self.inner.decided.was_forgotten(&id_of(trace_id)?, now_ms))
    }

    /// Brings the decisions up to date with the clock. Called at each record, between `due` and `add`, until it returns None: then it
    /// is done. Otherwise it has touched about `step` decisions, and returns the ids of those that were forgotten early.
    fn expire<'py>(&mut self, py: Python<'py>, step: usize) -> PyResult<Option<Bound<'py, PyList>>> {
        self.guarded(py, |this| {
            let mut early = Vec::new();
            let done = this.inner.decided.expire(this.inner.clock_ms, step, &mut early);
            if done && early.is_empty() {
                return Ok(None);
            }
            PyList::new(py, early.iter().map(|id| PyBytes::new(py, id))).map(Some)
        })
    }

    /// Takes in a decision that was committed earlier.
    fn load(
        &mut self,
        py: Python<'_>,
        trace_id: &[u8],
        entry: Option<&[u8]>,
        decided_at_ms: i64,
        first_offset: i64,
        cut_offset: i64,
    ) -> PyResult<()> {
        let id = id_of(trace_id)?;
        self.guarded(py, |this| {
            this.inner.decided.load(id, entry, decided_at_ms, first_offset, cut_offset);
            Ok(())
        })
    }

    /// Makes about `step` loaded decisions effective. Returns whether there are more.
    fn end_load(&mut self, py: Python<'_>, step: usize) -> PyResult<bool> {
        self.guarded(py, |this| Ok(this.inner.decided.end_load(step)))
    }
}

impl PyPartition {
    fn guarded<T>(&mut self, py: Python<'_>, work: impl FnOnce(&mut Self) -> PyResult<T>) -> PyResult<T> {
        if self.failed.is_none() {
            match catch_unwind(AssertUnwindSafe(|| work(self))) {
                Ok(result) => return result,
                Err(panic) => self.failed = Some(message_of(panic.as_ref())),
            }
        }
        let failure = self.failure.bind(py).clone();
        Err(PyErr::from_type(failure, self.failed.clone().unwrap_or_default()))
    }

    /// The next traces of which the facts are read, after about a step of work. It may be none.
    fn ready(&mut self, py: Python<'_>) -> PyResult<Vec<Py<ReadyTrace>>> {
        let mut ready = Vec::with_capacity(self.leaving.len() + 1);
        let mut left = self.step.saturating_mul(STAGES);
        while left > 0 {
            let Some(mut one) = self.reading.take().or_else(|| self.leaving.pop_front().map(|closed| self.begin(closed))) else {
                break;
            };
            left -= 1;
            let is_plain = match one.reading.as_mut() {
                Some(reading) => {
                    let items = Items { heads: &one.won, bytes: &one.bytes };
                    let tools = Tools { spellings: &self.spellings, wanted: &self.wanted };
                    match reading.step(items, tools, &mut self.memo, &mut left) {
                        Ok(false) => {
                            self.reading = Some(one);
                            break;
                        }
                        found => found.is_ok(),
                    }
                }
                None => false,
            };
            self.end(py, one, is_plain, &mut ready)?;
        }
        Ok(ready)
    }

    fn has_leaving(&self) -> bool {
        self.reading.is_some() || !self.leaving.is_empty()
    }

    fn begin(&mut self, Closed { mut trace, trigger, due_ms }: Closed) -> Leaving {
        let won = trace.take_won();
        let bytes = std::mem::take(&mut trace.bytes);
        let reading = (!won.is_empty()).then(|| Reading::new(&mut self.memo));
        Leaving { trace, trigger, due_ms, won, bytes, reading }
    }

    fn end(&mut self, py: Python<'_>, one: Leaving, is_plain: bool, ready: &mut Vec<Py<ReadyTrace>>) -> PyResult<()> {
        let Leaving { mut trace, trigger, due_ms, won, bytes, reading } = one;
        let process = trace.process;
        if let Some(reading) = reading {
            let found = reading.finish(&mut self.memo);
            let facts = is_plain.then_some(found);
            let registry = &self.inner.processes;
            let others = trace.others().iter().map(|other| (other.process, registry.resource(py, other.process)));
            let mut resources: Vec<_> = others.collect();
            resources.sort_unstable_by_key(|(process, _)| *process);
            let resource = registry.resource(py, process);
            let (complete, lost) = (trace.awaits(registry) == Wait::Complete, trace.is_lost(registry));
            let (starts, open_spans) = trace.fold.as_ref().map_or((0, 0), |fold| (fold.starts as usize, fold.open));
            let (id, first_offset, basis) = (trace.id, trace.first_offset, trace.basis() as u8);
            let root = facts.as_ref().and_then(|facts| won.get(facts.foremost));
            let service = registry.service(root.map_or(process, |root| root.process));
            #[rustfmt::skip]
            let one = ReadyTrace {
                id, trigger, basis, complete, lost, due_ms, first_offset, starts, open_spans, bytes, won, resource,
                resources, service, facts,
            };
            ready.push(Py::new(py, one)?);
        }
        self.inner.processes.release(py, process);
        for other in trace.others() {
            self.inner.processes.release(py, other.process);
        }
        trace.fold.take().into_iter().for_each(|fold| self.inner.spare.give(fold));
        Ok(())
    }
}

/// A trace that left the partition and of which the facts are read.
struct Leaving {
    trace: Trace,
    trigger: u8,
    due_ms: i64,
    won: Vec<Brief>,
    bytes: Vec<u8>,
    /// None: it has no span.
    reading: Option<Reading>,
}

/// As `trace_randomness` of `prela_stream.model.ids`: the last 56 bits of a trace id.
fn randomness_of(id: &TraceId) -> i64 {
    id[9..].iter().fold(0, |value, byte| value << 8 | i64::from(*byte))
}

/// A trace id that Python gives. As an array it would be read number by number.
fn id_of(bytes: &[u8]) -> PyResult<TraceId> {
    bytes.try_into().map_err(|_| PyValueError::new_err("a trace id has 16 bytes"))
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_string())
}

fn added_tuple<'py>(py: Python<'py>, added: Added) -> PyResult<Option<Bound<'py, PyTuple>>> {
    match added {
        Added::Whole(applied) => applied_tuple(py, applied).map(Some),
        Added::Part => Ok(Some(PyTuple::empty(py))),
        Added::NotPlain => Ok(None),
    }
}

fn applied_tuple<'py>(py: Python<'py>, applied: Applied) -> PyResult<Bound<'py, PyTuple>> {
    let late = applied.late.iter().map(|(id, index, item)| (PyBytes::new(py, id), *index, PyBytes::new(py, item)));
    let late = PyList::new(py, late)?;
    (applied.items, applied.control, applied.spans, applied.covered, late, applied.late_resource).into_pyobject(py)
}

#[pymodule]
fn prela_stream_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("INTERFACE", INTERFACE)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<PyPartition>()?;
    module.add_class::<ReadyTrace>()
}
