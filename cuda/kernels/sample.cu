/* sample: one token for each row of logits, without a sort, with the CPU's bits.
 *
 * Launches, the first, second and fourth with 64 threads for each row and block of 4096 logits,
 * the third with 256 for each row, the last with a warp for each row:
 * 1. survey: a block's logits are read once into registers, but for those that masks hide: the
 *    largest of its groups of 128 and where each stands, which groups have no token of
 *    -infinity, and its exponentials. raw_logits too, where they are given.
 * 2. weigh, only for top-p without top-k: masses by bins of z, in whole numbers.
 * 3. cut: where a row's filters end its ranking. The k-th largest group bounds what top-k can
 *    keep, a bin what top-p can; what lies above is set aside in shared memory (or read
 *    again from the row, where there is too much of it). Up to 256 tokens are ranked by a
 *    thread each; of more the end is found by narrowing ranges of ordered keys with exact
 *    counts and masses. Then a floor for draw: the best score of the tokens that are kept and
 *    the largest of their groups. A second block for each row lists its most likely tokens by
 *    the same means as the end.
 * 4. draw: of the groups that can hold a kept token: scores, sums of exp(z), bits. A token's
 *    logit is read, and a Gumbel number made, only if its word can bring it up to the floor.
 *    Bits of whole groups are known where no filter stands.
 * 5. finish: blocks fold to a row's answer.
 * Whoever reads a logit reads its masks too: no launch writes masked rows.
 * So a row is read once, and with top-k then a few of its groups. Where no filter stands at
 * temperature 1 a few of its logits are read again, of a flat row about 128. It is read a second
 * time at other temperatures or with min-p, and up to four times with top-p alone; each step of
 * narrowing reads once more what does not fit aside.
 *
 * Memory: workspace of 4 KiB a row, 36 bytes a block and 9 a group; 33 KiB shared in cut.
 * Sums in shared memory are of 32-bit words with a carry: adds of 64 bits are loops there.
 * Not measured yet.
 */
#include "sample_cut.h"
#include "sample_draw.h"
#include "sample_survey.h"
#include "sample_weigh.h"

ENTRY(pw_sample_survey, SUMS, 8, sample_arguments, survey_body)
ENTRY(pw_sample_weigh, SUMS, 16, sample_arguments, weigh_body)
ENTRY(pw_sample_cut, CUT_THREADS, 2, sample_arguments, cut_body)
ENTRY(pw_sample_draw, SUMS, 10, sample_arguments, draw_body)
ENTRY(pw_sample_finish, 128, 4, sample_arguments, finish_body)
