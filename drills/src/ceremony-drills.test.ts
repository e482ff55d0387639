import { ceremonyDrills } from './ceremony-catalogue.ts'
import { type Claims, proveDrills } from './drill-claims.ts'

const claims: Claims = {
  'recovery-single-holder': ['its identity is the same', 'one answer is enough'],
  'recovery-three-of-five': ['all ten triples opened it and no pair did'],
}

proveDrills('coordinators and their holders, for real', ceremonyDrills, claims)
