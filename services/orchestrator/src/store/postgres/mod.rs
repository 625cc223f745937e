//! stub
use super::Error;
pub struct PostgresStore;
