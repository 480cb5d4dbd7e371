//! How many connections clients know that a ztunnel took: what its records are compared with.
//!
//! Invariant: a connection is *certain* if the same process served before and after it was established; one during whose
//! establishment a ztunnel was killed or started may belong to either, and is *uncertain*.

use super::life::{Life, PerLife};

/// The clients' side of the books, for the process that serves at present.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Odd while there is no process.
    generation: u64,
    pub(super) certain: PerLife,
    pub(super) uncertain: PerLife,
}

impl Books {
    /// To be told when a connection was established that began now.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn established(&mut self, life: Life, began: u64) {
        let certain = began == self.generation && began.is_multiple_of(2);
        if certain { &mut self.certain } else { &mut self.uncertain }.count(life);
    }

    /// The process is about to be killed; what there is in the books goes with its records.
    pub(super) fn close(&mut self) {
        *self = Self { generation: self.generation + 1, ..Self::default() };
    }

    /// Another one serves.
    pub(super) fn reopen(&mut self) {
        self.generation += 1;
    }

    /// What does not fit: as many records as certain connections of each life, and as uncertain ones at most more. As many
    /// as are `unplaced` may be missing: those are records of which it is not known what they are of.
    pub(super) fn compare(&self, records: &PerLife, unplaced: u64) -> Vec<String> {
        let missing = |life: Life| self.certain.of(life).saturating_sub(records.of(life));
        let all_missing: u64 = Life::ALL.into_iter().map(missing).sum();
        let fits = |life: Life| {
            let most = self.certain.of(life) + self.uncertain.of(life);
            records.of(life) <= most && (missing(life) == 0 || all_missing <= unplaced)
        };
        let complaint = |life: Life| {
            let (certain, uncertain) = (self.certain.of(life), self.uncertain.of(life));
            let records = records.of(life);
            format!(
                "{life:?}: {records} records of {certain} connections and {uncertain} uncertain ones; {unplaced} unplaced"
            )
        };
        Life::ALL.into_iter().filter(|&life| !fits(life)).map(complaint).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(talks: u64) -> PerLife {
        let mut records = PerLife::default();
        (0..talks).for_each(|_| records.count(Life::Talk));
        records
    }

    #[test]
    fn every_connection_has_one_record() {
        let mut books = Books::default();
        books.established(Life::Talk, books.generation());
        assert!(books.compare(&records(1), 0).is_empty());
        assert_eq!(
            books.compare(&records(0), 0),
            ["Talk: 0 records of 1 connections and 0 uncertain ones; 0 unplaced"]
        );
        assert_eq!(books.compare(&records(2), 0).len(), 1);
    }

    #[test]
    fn a_record_of_which_it_is_not_known_what_it_is_of_may_be_that_of_a_missing_one() {
        let mut books = Books::default();
        books.established(Life::Talk, books.generation());
        assert!(books.compare(&records(0), 1).is_empty());
        books.established(Life::NeverRead, books.generation());
        assert_eq!(books.compare(&records(0), 1).len(), 2, "one record is not two");
    }

    #[test]
    fn a_connection_across_a_kill_may_be_in_the_new_books_or_not() {
        let mut books = Books::default();
        let began = books.generation();
        books.close();
        books.established(Life::Talk, books.generation());
        books.reopen();
        books.established(Life::Talk, began);
        assert!((0..=2).all(|number| books.compare(&records(number), 0).is_empty()));
        assert!(!books.compare(&records(3), 0).is_empty());
    }

    #[test]
    fn what_was_before_a_kill_is_forgotten_with_its_records() {
        let mut books = Books::default();
        books.established(Life::Talk, books.generation());
        books.close();
        books.reopen();
        books.established(Life::Talk, books.generation());
        assert!(books.compare(&records(1), 0).is_empty());
    }
}
