//! Transactions of a binary log, and the tables whose rows are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use foldhash::HashMap;
use proto::crud::{Change, Operation, ResyncReason};
use query::resources::Numbers;

use super::{
    cascade::Cascades,
    layout::{ColumnNature, LoggedRows, MappedTable, RowLayout},
    place::BinlogPlace,
    stream::{RawEvent, kind},
};
use crate::store::log::{ImageWriter, change};

/// Memory that a change takes beside its images.
const CHANGE_BYTES: usize = 128;

/// Flags of a GTID: one statement is all of the transaction; it is only prepared.
const STANDALONE: u8 = 1;
const PREPARED: u8 = 64;

/// The tables that are followed.
#[derive(Debug, Default, Clone)]
pub struct LoggedTables {
    /// The database that they are in.
    pub database: String,
    by_name: BTreeMap<String, LoggedTable>,
    /// Those that the log has mapped, by the ids of events.
    mapped: HashMap<u64, MappedRows>,
    /// Those that were changed, where only that is asked for.
    touched: BTreeSet<String>,
    /// What foreign keys change.
    cascades: Arc<Cascades>,
}

#[derive(Debug, Clone)]
struct LoggedTable {
    /// `None` where only whether it changed is asked for.
    writer: Option<Arc<ImageWriter>>,
    natures: Arc<BTreeMap<String, ColumnNature>>,
    /// The place before which rows are not told: what they look like is not known. Where it is reached, that is told.
    void_until: Option<(BinlogPlace, ResyncReason)>,
    /// Rows were not told, since their columns are others than those of the writer.
    has_passed_over: bool,
}

/// A table as the log has mapped it.
#[derive(Debug, Clone)]
struct MappedRows {
    map: Arc<MappedTable>,
    layout: Option<Arc<RowLayout>>,
}

/// A transaction of which not all has arrived.
#[derive(Debug, Clone)]
pub struct OpenTransaction {
    /// Its place.
    pub start: BinlogPlace,
    /// One statement is all of it.
    pub is_standalone: bool,
    /// Its rows count once it is committed by another.
    pub is_prepared: bool,
    /// Changes that are not told yet.
    pub changes: Vec<Change>,
    /// Memory of these.
    pub bytes: usize,
    /// The tables that it changed.
    pub touched: BTreeSet<String>,
    /// Those of which not all is told, as followers know.
    pub lost: BTreeSet<String>,
    /// Events of rows so far.
    events: u64,
    /// The last row among the changes, or before them.
    row: u64,
    /// The last row that was told.
    told: u64,
}

impl OpenTransaction {
    /// The transaction that begins at a place by a GTID of these flags. Of one that was told in part, only rows after `told`
    /// are.
    pub fn new(start: BinlogPlace, flags: u8, told: Option<(u64, u64)>) -> Self {
        let told = told.filter(|(place, _)| *place == start.0).map_or(0, |(_, row)| row);
        Self {
            start,
            is_standalone: flags & STANDALONE != 0,
            is_prepared: flags & PREPARED != 0,
            changes: Vec::new(),
            bytes: 0,
            touched: BTreeSet::new(),
            lost: BTreeSet::new(),
            events: 0,
            row: told,
            told,
        }
    }

    /// The last row that was told, where any was.
    pub fn told(&self) -> Option<(u64, u64)> {
        (self.told > 0).then_some((self.start.0, self.told))
    }

    /// Takes the changes that are to be told next; the last row of them.
    pub fn take(&mut self) -> (Vec<Change>, u64) {
        self.told = self.row;
        self.bytes = 0;
        (std::mem::take(&mut self.changes), self.row)
    }
}

impl LoggedTables {
    /// Whether none is followed.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Follows a table.
    pub fn add(&mut self, table: &str, writer: Option<Arc<ImageWriter>>, natures: BTreeMap<String, ColumnNature>) {
        let natures = Arc::new(natures);
        let table_state = LoggedTable { writer, natures, void_until: None, has_passed_over: false };
        self.by_name.insert(table.to_owned(), table_state);
        self.forget_layouts();
    }

    /// Follows a table no longer.
    pub fn remove(&mut self, table: &str) {
        self.by_name.remove(table);
    }

    /// Follows only these.
    pub fn retain(&mut self, kept: &[String]) {
        self.by_name.retain(|table, _| kept.contains(table));
    }

    /// The tables, with their writers.
    pub fn writers(&self) -> Vec<(String, Option<Arc<ImageWriter>>)> {
        self.by_name.iter().map(|(table, state)| (table.clone(), state.writer.clone())).collect()
    }

    /// Images of a table have the columns of `writer` from now on. What was passed over meanwhile is told to be missing.
    pub fn describe(&mut self, table: &str, writer: Arc<ImageWriter>) {
        let Some(state) = self.by_name.get_mut(table) else { return };
        state.writer = Some(writer);
        if std::mem::take(&mut state.has_passed_over) {
            state.void_until.get_or_insert((BinlogPlace(0), ResyncReason::LogLost));
        }
        self.forget_layouts();
    }

    /// Rows are read anew, as the tables are now.
    pub fn forget_layouts(&mut self) {
        self.mapped.values_mut().for_each(|mapped| mapped.layout = None);
    }

    /// A transaction begins, which maps its tables anew.
    pub fn begin(&mut self) {
        /// Ids are given for good, and nobody says which are used no longer.
        const MAPPED_MAX: usize = 4096;
        if self.mapped.len() > MAPPED_MAX {
            self.mapped.clear();
        }
    }

    /// The tables that were changed since this was last asked.
    pub fn take_touched(&mut self) -> Vec<String> {
        std::mem::take(&mut self.touched).into_iter().collect()
    }

    /// The tables that a statement names, or all.
    pub fn named(&self, is_named: impl Fn(&str) -> bool) -> Vec<String> {
        self.by_name.keys().filter(|table| is_named(table)).cloned().collect()
    }

    /// Rows of a table before a place are not told; the columns of those after it are these.
    pub fn void(
        &mut self,
        table: &str,
        natures: BTreeMap<String, ColumnNature>,
        until: BinlogPlace,
        reason: ResyncReason,
    ) {
        if let Some(state) = self.by_name.get_mut(table) {
            state.natures = Arc::new(natures);
            state.void_until = Some((until, reason));
        }
        self.forget_layouts();
    }

    /// The writer of a table's images.
    pub fn writer(&self, table: &str) -> Option<Arc<ImageWriter>> {
        self.by_name.get(table)?.writer.clone()
    }

    /// The tables whose rows are told again from a place on, and why they were not before.
    pub fn told_again(&mut self, place: BinlogPlace) -> Vec<(String, ResyncReason)> {
        let mut again = Vec::new();
        for (table, state) in &mut self.by_name {
            if let Some((_, reason)) = state.void_until.take_if(|(until, _)| *until <= place) {
                again.push((table.clone(), reason));
            }
        }
        again
    }

    /// Takes an event that maps a table.
    pub fn map(&mut self, event: &RawEvent) {
        let Some(map) = MappedTable::parse(&event.body) else { return };
        match self.mapped.get(&map.id) {
            Some(known) if *known.map == map => {}
            Some(_) | None => {
                self.mapped.insert(map.id, MappedRows { map: Arc::new(map), layout: None });
            }
        }
    }

    /// What foreign keys change.
    pub fn cascade(&mut self, cascades: Cascades) {
        self.cascades = Arc::new(cascades);
    }

    /// Takes rows of a transaction. The tables of which something is not told, and should be, are lost.
    pub fn rows(&mut self, event: &RawEvent, open: &mut OpenTransaction, numbers: Numbers) -> BTreeSet<String> {
        open.events += 1;
        let (operation, has_before, has_after) = match event.kind {
            kind::WRITE_ROWS => (Operation::Insert, false, true),
            kind::UPDATE_ROWS => (Operation::Update, true, true),
            _ => (Operation::Delete, true, false),
        };
        let parsed = LoggedRows::parse(&event.body, has_before, has_after);
        let mapped = parsed.and_then(|(id, rows)| Some((self.mapped.get_mut(&id)?, rows)));
        let Some((mapped, rows)) = mapped else { return self.lost(open, self.by_name.keys().cloned().collect()) };
        let mut lost = BTreeSet::new();
        if has_before {
            let changed = self.cascades.changed(&mapped.map, &event.body, has_after);
            lost.extend(changed.into_iter().filter(|child| self.by_name.contains_key(child)));
        }
        let table = mapped.map.table.clone();
        let is_own = mapped.map.database == self.database;
        if let Some(state) = self.by_name.get_mut(&table).filter(|_| is_own) {
            open.touched.insert(table.clone());
            let is_void = state.void_until.is_some_and(|(until, _)| open.start < until);
            if let Some(writer) = state.writer.clone().filter(|_| !is_void)
                && !state.read(mapped, rows, (&mut *open, operation), (&writer, numbers))
            {
                lost.insert(table);
            }
        }
        self.lost(open, lost)
    }

    /// Those of the tables that a transaction changed in a way that is not told, whose followers do not know that yet.
    fn lost(&self, open: &mut OpenTransaction, mut lost: BTreeSet<String>) -> BTreeSet<String> {
        open.touched.extend(lost.iter().cloned());
        lost.retain(|table| self.writer(table).is_some() && open.lost.insert(table.clone()));
        lost
    }

    /// Notes the tables of a transaction that only asks whether they changed.
    pub fn touch(&mut self, tables: &BTreeSet<String>) {
        let is_noted = |table: &&String| self.by_name.get(*table).is_some_and(|state| state.writer.is_none());
        let noted: Vec<String> = tables.iter().filter(is_noted).cloned().collect();
        self.touched.extend(noted);
    }
}

impl LoggedTable {
    /// Reads rows as changes of a transaction; whether all of them were read, or need not be.
    fn read(
        &mut self,
        mapped: &mut MappedRows,
        mut rows: LoggedRows<'_>,
        (open, operation): (&mut OpenTransaction, Operation),
        (writer, numbers): (&ImageWriter, Numbers),
    ) -> bool {
        if !rows.is_full {
            return false;
        }
        if mapped.layout.is_none() {
            mapped.layout = mapped.map.layout(writer, &self.natures).map(Arc::new);
        }
        let Some(layout) = &mapped.layout else {
            // Its columns are about to be known, which is told then: once is enough until it is.
            return std::mem::replace(&mut self.has_passed_over, mapped.map.has_names());
        };
        let first = open.events << 32;
        for index in 1.. {
            let Some((before, after)) = rows.next(layout, writer, numbers) else { break };
            let row = first | index;
            if row > open.told {
                open.row = row;
                open.bytes += before.len() + after.len() + CHANGE_BYTES;
                open.changes.push(change(&mapped.map.table, operation, before, after));
            }
        }
        rows.is_read()
    }
}
