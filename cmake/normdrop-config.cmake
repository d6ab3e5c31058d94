# find_package(normdrop) gives the targets normdrop::normdrop, the shared library, and normdrop::static.
#
# The files of the installation are found from this one: PREFIX/share/normdrop/cmake.
get_filename_component(_normdrop_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

foreach(_normdrop_folder "lib" "lib64" "lib/${CMAKE_LIBRARY_ARCHITECTURE}")
    set(_normdrop_folder "${_normdrop_prefix}/${_normdrop_folder}")
    set(_normdrop_file "${_normdrop_folder}/${CMAKE_SHARED_LIBRARY_PREFIX}normdrop${CMAKE_SHARED_LIBRARY_SUFFIX}")
    if(EXISTS "${_normdrop_file}" AND NOT TARGET normdrop::normdrop)
        add_library(normdrop::normdrop SHARED IMPORTED)
        set_target_properties(normdrop::normdrop PROPERTIES
            IMPORTED_LOCATION "${_normdrop_file}"
            INTERFACE_INCLUDE_DIRECTORIES "${_normdrop_prefix}/include")
    endif()
    set(_normdrop_file "${_normdrop_folder}/${CMAKE_STATIC_LIBRARY_PREFIX}normdrop${CMAKE_STATIC_LIBRARY_SUFFIX}")
    if(EXISTS "${_normdrop_file}" AND NOT TARGET normdrop::static)
        add_library(normdrop::static STATIC IMPORTED)
        # Those of Libs.private in normdrop.pc.
        set_target_properties(normdrop::static PROPERTIES
            IMPORTED_LOCATION "${_normdrop_file}"
            INTERFACE_INCLUDE_DIRECTORIES "${_normdrop_prefix}/include"
            INTERFACE_LINK_LIBRARIES "gcc_s;util;rt;pthread;m;dl;c")
    endif()
endforeach()

if(NOT TARGET normdrop::normdrop AND NOT TARGET normdrop::static)
    set(normdrop_FOUND FALSE)
    set(normdrop_NOT_FOUND_MESSAGE "there is no library of normdrop in ${_normdrop_prefix}/lib, lib64 or lib/${CMAKE_LIBRARY_ARCHITECTURE}")
endif()
unset(_normdrop_prefix)
unset(_normdrop_folder)
unset(_normdrop_file)
