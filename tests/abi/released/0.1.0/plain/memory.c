/* Where there is no memory, that is what a call says. */
#include "../claim.h"
#include <sys/resource.h>

int main(void) {
    const struct rlimit most = {2ul << 30, 2ul << 30};
    CLAIM(setrlimit(RLIMIT_AS, &most) == 0);
    pw_pages *pages = NULL;
    pw_pages_state state = {.struct_size = sizeof state};
    CLAIM(pw_pages_create(1u << 31, 16, &pages, &error) == PW_E_MEMORY && names("pages") && pages == NULL);
    CLAIM(error.got >= 1ll << 31);
    CLAIM(pw_pages_create(1u << 20, 16, &pages, &error) == PW_OK);
    CLAIM(pw_pages_count(pages, &state, &error) == PW_OK && state.free == 1u << 20);
    pw_pages_destroy(pages);
    puts("memory: ok");
    return 0;
}
