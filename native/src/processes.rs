//! The processes with items in open traces. Each is known by the bytes of its resource, which are held once.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::trace::Processes;

struct Process {
    resource: Py<PyBytes>,
    beats: bool,
    service: Arc<str>,
    /// Offset of its last LOST item without a trace id.
    lost_offset: i64,
    /// Open traces with items from it.
    traces: u32,
}

pub struct Registry {
    slots: Vec<Option<Process>>,
    free: Vec<u32>,
    by_resource: HashMap<Vec<u8>, u32>,
    /// `resource bytes -> (whether the process sends heartbeats, its service)`, in Python: resources are decoded there.
    describe: Py<PyAny>,
}

impl Registry {
    pub fn new(describe: Py<PyAny>) -> Self {
        Registry { slots: Vec::new(), free: Vec::new(), by_resource: HashMap::new(), describe }
    }

    pub fn find_or_add(&mut self, py: Python<'_>, resource: &[u8]) -> PyResult<u32> {
        if let Some(known) = self.by_resource.get(resource) {
            return Ok(*known);
        }
        let bytes = PyBytes::new(py, resource);
        let (beats, service): (bool, String) = self.describe.call1(py, (&bytes,))?.extract(py)?;
        let process = Process { resource: bytes.unbind(), beats, service: service.into(), lost_offset: -1, traces: 0 };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(process);
                slot
            }
            None => {
                self.slots.push(Some(process));
                (self.slots.len() - 1) as u32
            }
        };
        self.by_resource.insert(resource.to_vec(), slot);
        Ok(slot)
    }

    pub fn resource(&self, py: Python<'_>, process: u32) -> Py<PyBytes> {
        match self.slots.get(process as usize) {
            Some(Some(process)) => process.resource.clone_ref(py),
            _ => PyBytes::new(py, b"\x80").unbind(),
        }
    }

    pub fn service(&self, process: u32) -> Arc<str> {
        match self.slots.get(process as usize) {
            Some(Some(process)) => process.service.clone(),
            _ => Arc::from(""),
        }
    }

    pub fn set_lost(&mut self, process: u32, offset: i64) {
        if let Some(Some(process)) = self.slots.get_mut(process as usize) {
            process.lost_offset = offset;
        }
    }

    pub fn hold(&mut self, process: u32) {
        if let Some(Some(process)) = self.slots.get_mut(process as usize) {
            process.traces += 1;
        }
    }

    /// One open trace less; forgets the process with its last one.
    pub fn release(&mut self, py: Python<'_>, process: u32) {
        if let Some(Some(held)) = self.slots.get_mut(process as usize) {
            held.traces -= 1;
            self.forget_if_unused(py, process);
        }
    }

    pub fn forget_if_unused(&mut self, py: Python<'_>, process: u32) {
        let Some(slot) = self.slots.get_mut(process as usize) else {
            return;
        };
        if slot.as_ref().is_some_and(|process| process.traces == 0) {
            if let Some(gone) = slot.take() {
                self.by_resource.remove(gone.resource.as_bytes(py));
                self.free.push(process);
            }
        }
    }
}

impl Processes for Registry {
    fn beats(&self, process: u32) -> bool {
        matches!(self.slots.get(process as usize), Some(Some(process)) if process.beats)
    }

    fn lost_offset(&self, process: u32) -> i64 {
        match self.slots.get(process as usize) {
            Some(Some(process)) => process.lost_offset,
            _ => -1,
        }
    }
}
