//! Players as judges.
