//! What is told of a packet's way, as a tree, and as text: what comes last is not deeper than what it
//! follows from, so that a chain of tables does not go off to the right.

use std::fmt::Write as _;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Bridge,
    /// A table, or the action set.
    Table,
    Bucket,
    Action,
    Detail,
    Warning,
    Error,
}

impl What {
    /// Whether nothing goes on from it.
    const fn is_terminal(self) -> bool {
        !matches!(self, Self::Bridge | Self::Table)
    }
}

/// A line, and what follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    what: What,
    text: String,
    inner: Vec<Self>,
}

/// The most bytes of all lines.
const MAX_TEXT: usize = 4 << 20;

/// Lines as they are told.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Those that are not at their end, the outermost first.
    open: Vec<Node>,
    bytes: usize,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Node { what: What::Bridge, text: String::new(), inner: Vec::new() };
        Self { open: vec![root], bytes: 0 }
    }

    /// How deep it is.
    pub(crate) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Whether there is no room for more lines.
    pub(crate) const fn is_full(&self) -> bool {
        self.bytes >= MAX_TEXT
    }

    /// Adds a line; what comes next follows from it.
    pub(crate) fn begin(&mut self, what: What, text: String) {
        self.bytes = self.bytes.saturating_add(text.len()).saturating_add(8);
        self.open.push(Node { what, text, inner: Vec::new() });
    }

    /// Nothing more follows from those deeper than this.
    pub(crate) fn end(&mut self, depth: usize) {
        while self.open.len() > depth.max(1) {
            let Some(done) = self.open.pop() else { return };
            if let Some(outer) = self.open.last_mut() {
                outer.inner.push(done);
            }
        }
    }

    /// Adds a line from which nothing follows.
    pub(crate) fn add(&mut self, what: What, text: String) {
        if self.is_full() {
            return;
        }
        self.bytes = self.bytes.saturating_add(text.len()).saturating_add(8);
        if let Some(outer) = self.open.last_mut() {
            outer.inner.push(Node { what, text, inner: Vec::new() });
        }
    }

    /// All of it as text.
    pub(crate) fn text(mut self) -> String {
        self.end(1);
        let mut text = String::new();
        let root = self.open.pop().map(|root| root.inner).unwrap_or_default();
        // Those to come, the next one last, each with its depth and whether it is the last of its kind.
        let mut left = Vec::new();
        push(&root, 0, &mut left);
        while let Some((node, level, is_last)) = left.pop() {
            let more = usize::from(!is_last || node.what.is_terminal());
            line(node, level + more, &mut text);
            push(&node.inner, level + more + more, &mut left);
        }
        text
    }
}

fn push<'n>(nodes: &'n [Node], level: usize, left: &mut Vec<(&'n Node, usize, bool)>) {
    let last = nodes.len().saturating_sub(1);
    left.extend(nodes.iter().enumerate().rev().map(|(at, node)| (node, level, at == last)));
}

/// Blanks of one level.
const INDENT: usize = 4;

fn line(node: &Node, level: usize, out: &mut String) {
    let Node { what, text, .. } = node;
    let indent = level.saturating_mul(INDENT);
    let _ = match what {
        What::Bridge => {
            let dashes = "-".repeat(text.len());
            writeln!(out, "\n{:indent$}{text}\n{:indent$}{dashes}", "", "")
        }
        What::Table | What::Bucket | What::Action => writeln!(out, "{:indent$}{text}", ""),
        What::Detail => writeln!(out, "{:indent$} -> {text}", ""),
        What::Warning => writeln!(out, "{:indent$} >> {text}", ""),
        What::Error => writeln!(out, "{:indent$} >>>> {text} <<<<", ""),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_last_is_not_deeper() {
        let mut tree = Tree::new();
        let begin = |tree: &mut Tree, what, text: &str| tree.begin(what, text.to_owned());
        begin(&mut tree, What::Bridge, "bridge(\"br0\")");
        begin(&mut tree, What::Table, " 0. priority 1");
        tree.add(What::Action, "resubmit(,1)".to_owned());
        let depth = tree.depth();
        begin(&mut tree, What::Table, " 1. priority 2");
        tree.add(What::Action, "output:2".to_owned());
        tree.end(depth);
        tree.add(What::Action, "goto_table:2".to_owned());
        begin(&mut tree, What::Table, " 2. No match.");
        tree.add(What::Action, "drop".to_owned());
        tree.add(What::Detail, "that is so".to_owned());
        let text = "\nbridge(\"br0\")\n-------------\n 0. priority 1\n    resubmit(,1)\n     1. priority \
                    2\n            output:2\n    goto_table:2\n 2. No match.\n    drop\n     -> that is so\n";
        assert_eq!(tree.text(), text);
    }
}
