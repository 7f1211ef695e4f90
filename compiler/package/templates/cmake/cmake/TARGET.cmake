# cmake -DCMAKE_TOOLCHAIN_FILE=cmake/@{target}.cmake: GCC for a bare @{target}.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR @{target})
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_C_COMPILER @{gcc_prefix}gcc)
set(CMAKE_CXX_COMPILER @{gcc_prefix}g++)
set(CMAKE_C_FLAGS_INIT "@{gcc_flags} -ffreestanding")
set(CMAKE_CXX_FLAGS_INIT "@{gcc_flags} -ffreestanding")
