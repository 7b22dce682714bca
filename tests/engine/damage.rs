//! P5: damage is never taken for absence.
