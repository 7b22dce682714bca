//! P12 and P13: a store has one owner, and what is not a store is left alone.
