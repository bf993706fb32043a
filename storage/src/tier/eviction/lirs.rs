//! LIRS (Jiang and Zhang, SIGMETRICS 2002): blocks are kept by the distance between their last two reads, not by the last
//! read alone. A loop over more than memory keeps most of what it has instead of nothing.
//!
//! Blocks of short distance (`Near`) own nearly all frames; the others pass a short queue, and are remembered in the
//! stack of reads for a while after they left, so that a second read shows that they are near. The stack is pruned so
//! that its oldest entry is always near.

use super::list::{Links, List};
use super::{EvictionPolicy, Residents};
use crate::tier::BlockKey;
use crate::tier::index::{home, spread};
use crate::units::to_usize;

/// Share of frames for blocks that are not near: one in so many.
const FAR_PART: usize = 100;
/// Blocks remembered after they left, for each frame.
const GHOSTS_PER_FRAME: usize = 5;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Near,
    Far,
    Ghost,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    key: BlockKey,
    frame: u32,
    state: State,
    in_stack: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Lirs {
    nodes: Box<[Node]>,
    free: Vec<u32>,
    table: Box<[u32]>,
    // Which node a frame's block has.
    node_of: Box<[u32]>,
    stack_links: Links,
    stack: List,
    // Far blocks, and ghosts, each in order of their last move.
    queue_links: Links,
    queue: List,
    ghosts: List,
    near: usize,
    near_max: usize,
}

fn at(number: u32) -> usize {
    to_usize(u64::from(number))
}

impl Lirs {
    /// A policy for frames `0..frames`.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        let nodes = frames * (1 + GHOSTS_PER_FRAME) + 1;
        let empty = Node {
            key: BlockKey { file: crate::tier::FileNo(0), block: 0 },
            frame: NONE,
            state: State::Free,
            in_stack: false,
        };
        Self {
            nodes: vec![empty; nodes].into(),
            free: (0..u32::try_from(nodes).unwrap_or(NONE)).rev().collect(),
            table: vec![NONE; 2 * nodes].into(),
            node_of: vec![NONE; frames].into(),
            stack_links: Links::new(nodes),
            stack: List::EMPTY,
            queue_links: Links::new(nodes),
            queue: List::EMPTY,
            ghosts: List::EMPTY,
            near: 0,
            near_max: frames - (frames / FAR_PART).max(2).min(frames / 2),
        }
    }

    fn cell(&self, key: BlockKey) -> (usize, bool) {
        let mut cell = home(spread(key), self.table.len());
        while self.table[cell] != NONE {
            if self.nodes[at(self.table[cell])].key == key {
                return (cell, true);
            }
            cell = (cell + 1) % self.table.len();
        }
        (cell, false)
    }

    /// Forgets a node that is in no list.
    fn release(&mut self, node: u32) {
        let (mut hole, found) = self.cell(self.nodes[at(node)].key);
        if found {
            self.table[hole] = NONE;
            let len = self.table.len();
            let mut cell = (hole + 1) % len;
            while self.table[cell] != NONE {
                let ideal = home(spread(self.nodes[at(self.table[cell])].key), len);
                if (cell + len - ideal) % len >= (cell + len - hole) % len {
                    self.table[hole] = self.table[cell];
                    self.table[cell] = NONE;
                    hole = cell;
                }
                cell = (cell + 1) % len;
            }
        }
        self.nodes[at(node)].state = State::Free;
        self.free.push(node);
    }

    fn raise(&mut self, node: u32) {
        if self.nodes[at(node)].in_stack {
            self.stack.remove(node, &mut self.stack_links);
        }
        self.stack.push(node, &mut self.stack_links);
        self.nodes[at(node)].in_stack = true;
    }

    fn leave_stack(&mut self, node: u32) {
        self.stack.remove(node, &mut self.stack_links);
        self.nodes[at(node)].in_stack = false;
        if self.nodes[at(node)].state == State::Ghost {
            self.ghosts.remove(node, &mut self.queue_links);
            self.release(node);
        }
    }

    /// The oldest entry of the stack is near.
    fn prune(&mut self) {
        while let Some(oldest) = self.stack.oldest() {
            if self.nodes[at(oldest)].state == State::Near {
                break;
            }
            self.leave_stack(oldest);
        }
    }

    /// Makes room among the near: the one read longest ago becomes far.
    fn demote(&mut self) {
        while self.near > self.near_max {
            self.prune();
            let Some(oldest) = self.stack.oldest() else { break };
            self.nodes[at(oldest)].state = State::Far;
            self.near -= 1;
            self.queue.push(oldest, &mut self.queue_links);
            self.leave_stack(oldest);
        }
        self.prune();
    }
}

impl EvictionPolicy for Lirs {
    fn inserted(&mut self, frame: u32, key: BlockKey) {
        let (cell, known) = self.cell(key);
        let node = if known { Some(self.table[cell]) } else { self.free.pop() };
        let node = node.or_else(|| {
            // Full of ghosts: the one that left first makes room.
            let oldest = self.ghosts.oldest()?;
            self.leave_stack(oldest);
            self.free.pop()
        });
        let Some(node) = node else { return };
        if known {
            self.ghosts.remove(node, &mut self.queue_links);
        } else {
            let (cell, _) = self.cell(key);
            self.table[cell] = node;
        }
        self.node_of[at(frame)] = node;
        let near = known || self.near < self.near_max;
        let state = if near { State::Near } else { State::Far };
        let in_stack = known && self.nodes[at(node)].in_stack;
        self.nodes[at(node)] = Node { key, frame, state, in_stack };
        self.raise(node);
        if near {
            self.near += 1;
            self.demote();
        } else {
            self.queue.push(node, &mut self.queue_links);
        }
    }

    fn hit(&mut self, frame: u32) {
        let node = self.node_of[at(frame)];
        match self.nodes[at(node)].state {
            State::Near => {
                self.raise(node);
                self.prune();
            }
            State::Far => {
                self.queue.remove(node, &mut self.queue_links);
                if self.nodes[at(node)].in_stack {
                    self.nodes[at(node)].state = State::Near;
                    self.near += 1;
                    self.raise(node);
                    self.demote();
                } else {
                    self.queue.push(node, &mut self.queue_links);
                    self.raise(node);
                }
            }
            State::Free | State::Ghost => {}
        }
    }

    fn evict(&mut self, residents: &mut dyn Residents) -> Option<u32> {
        for _ in 0..self.queue.len() {
            let node = self.queue.pop(&mut self.queue_links)?;
            let Node { frame, in_stack, .. } = self.nodes[at(node)];
            if !residents.take_out(frame) {
                self.queue.push(node, &mut self.queue_links);
                continue;
            }
            self.node_of[at(frame)] = NONE;
            if in_stack {
                self.nodes[at(node)].state = State::Ghost;
                self.ghosts.push(node, &mut self.queue_links);
            } else {
                self.release(node);
            }
            return Some(frame);
        }
        // Only near blocks are left, or all far ones are in use.
        for _ in 0..self.stack.len() {
            let node = self.stack.pop(&mut self.stack_links)?;
            let Node { frame, state, .. } = self.nodes[at(node)];
            if state == State::Near && residents.take_out(frame) {
                self.nodes[at(node)].in_stack = false;
                self.near -= 1;
                self.node_of[at(frame)] = NONE;
                self.release(node);
                self.prune();
                return Some(frame);
            }
            self.stack.push(node, &mut self.stack_links);
        }
        None
    }
}
