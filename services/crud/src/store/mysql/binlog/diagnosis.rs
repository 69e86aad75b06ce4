//! Diagnosis of a server's database: nothing is made in it, so nothing has to be removed.

use query::resources::ChangesSource;

use super::survey;
use crate::{
    Error,
    store::{
        diagnosis::{Diagnosis, Finding, Severity},
        mysql::Mysql,
    },
};

impl Mysql {
    /// What live queries have of the database, whose document says how changes are learnt.
    pub async fn diagnose(&self, source: ChangesSource) -> Result<Diagnosis, Error> {
        let served = self.introspect().await?.schema;
        let mut diagnosis = Diagnosis { source: "off", ..Diagnosis::default() };
        let tables = served.tables().iter().map(|table| table.name.clone());
        diagnosis.tables.extend(tables);
        if source == ChangesSource::Off {
            return Ok(diagnosis);
        }
        let obstacles = self.binlog_survey().await?.obstacles;
        diagnosis.source = if obstacles.is_empty() { "binlog" } else { "none" };
        for obstacle in &obstacles {
            let text = format!("live queries: {obstacle}");
            diagnosis.findings.push(Finding { severity: Severity::Missing, text, sql: obstacle.remedy() });
        }
        for table in served.tables() {
            let (name, wanted) = (table.name.clone(), readable(table));
            let found = self.in_binlog_session(|conn| {
                Box::pin(
                    async move { survey::table(conn, &name, |column| wanted.iter().any(|name| name == column)).await },
                )
            });
            match found.await? {
                Ok(_) if obstacles.is_empty() => diagnosis.followed.push(table.name.clone()),
                Ok(_) => {}
                Err(obstacle) => {
                    let sql = obstacle.remedy();
                    let severity = if sql.is_some() { Severity::Missing } else { Severity::Unfollowed };
                    let text = format!("{}: {obstacle}", table.name);
                    diagnosis.findings.push(Finding { severity, text, sql });
                }
            }
        }
        Ok(diagnosis)
    }
}

fn readable(table: &query::Table) -> Vec<String> {
    table.columns.iter().filter(|column| column.readable).map(|column| column.name.clone()).collect()
}
