include("${CMAKE_CURRENT_LIST_DIR}/@{library}-targets.cmake")
