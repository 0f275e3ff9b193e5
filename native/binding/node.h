// The one header that includes Node-API. Cold paths use node-addon-api; hot ones its raw C functions, which cost less.
#pragma once
#include <napi.h>
