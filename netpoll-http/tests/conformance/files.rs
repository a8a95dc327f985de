//! Files by paths that mean something else to a file system than to a router.

crate::conforms! {
    files:
    a_file_is_named_by_its_path_decoded_once
    a_path_that_no_file_can_have_is_400
    what_is_not_a_file_below_the_directory_is_404
    two_dates_are_no_condition_and_one_before_1970_is_one
    a_range_is_a_list_of_one_that_may_have_empty_members
}
