//! To come on its branch.
