// Handlers around fork(): the one place with pthread_atfork. Windows has no fork and never calls them.
#pragma once

namespace atrous {

using ForkHandler = void (*)();

// Each may be null. `before` runs in the forking thread, then `in_parent` and `in_child`.
void at_fork(ForkHandler before, ForkHandler in_parent, ForkHandler in_child);

}  // namespace atrous
