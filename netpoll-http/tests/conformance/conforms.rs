//! A row of the table as tests.

/// Makes two tests of each named row: in memory and over a socket.
macro_rules! conforms {
    ($group:ident: $($row:ident)*) => {
        mod in_memory {
            $(#[test] fn $row() { crate::run::in_memory(&crate::cases::$group::$row()); })*
        }
        mod over_tcp {
            $(#[test] fn $row() { crate::run::over_tcp(&crate::cases::$group::$row()); })*
        }
        #[test]
        fn every_row_of_the_table_is_tested() {
            let rows: Vec<&str> = crate::cases::$group::ROWS.iter().map(|row| row.name).collect();
            assert_eq!(rows, [$(stringify!($row)),*]);
        }
    };
}
pub(crate) use conforms;
