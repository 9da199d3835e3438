//! Letters without regard to capitals, in every script: SQLite's own `lower` knows ASCII only.

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

/// Returns a text in which letters are the same that differ as capitals do, such as `Ä` and `ä`.
pub(crate) fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Lets queries of a connection use `fold`.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("fold", 1, flags, |context| {
        Ok(context.get::<Option<String>>(0)?.map(|text| fold(&text)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_of_every_script_are_found() {
        for (text, searched) in [
            ("Ärger GmbH", "ärger"),
            ("Straße", "STRASSE"),
            ("Żółw", "żÓŁW"),
            ("ΟΔΟΣ", "οδος"),
            ("Москва", "МОС"),
        ] {
            assert!(fold(text).contains(&fold(searched)), "{searched} in {text}");
        }
        let connection = Connection::open_in_memory().unwrap();
        register(&connection).unwrap();
        let sql = "SELECT instr(fold('ÜBER'), fold('über')), fold(NULL) IS NULL";
        let found = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(found, Ok((1, true)));
    }
}
